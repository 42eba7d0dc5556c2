"""Making a pruning plan: a network, its scores and the compress rates, without any images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn as nn
from torch import Tensor

from models.channel_graph import ChannelGraph
from models.channel_groups import channel_groups
from models.rank_layers import rank_layers
from models.registry import example_images
from utils.commands.inputs import note
from utils.metrics.accuracy import Accuracy
from utils.metrics.cost import Cost, counts, paper_cost, physical_cost
from utils.paper.compare import compare_row
from utils.paper.tables import matching_row
from utils.pruning.compress_rates import fit_rates, format_rates, parse_rates
from utils.pruning.criteria import RANK_CRITERIA
from utils.pruning.group_plan import plan_groups
from utils.pruning.network_file import Network
from utils.pruning.plan import PruningPlan, plan_by_rates
from utils.pruning.scores import score_filters
from utils.pruning.surgery import remove_filters
from utils.rank.rank_files import read_manifest, read_ranks


@dataclass(frozen=True)
class Planned:
    """A dense network, what is to go, and the small network that is then left."""

    dense: Network
    graph: ChannelGraph
    scores: Mapping[str, Tensor]  # {conv: [filters]}
    plan: PruningPlan
    slim: nn.Module
    rates: tuple[float, ...]

    def compress_rate(self) -> str:
        """Return the compress rates that were used, in the official grammar."""
        return format_rates(self.rates)

    def beside_paper(
        self, pruned: Mapping[str, int], accuracy: Accuracy | None = None
    ) -> dict[str, Any] | None:
        """Return the published row of these rates beside what was measured, None without one.

        `pruned` holds macs and parameters by the paper rule.
        """
        arch = self.dense.arch
        row = matching_row(arch, self.rates, expand=lambda text: expand_rates(text, arch))
        return row and compare_row(row, pruned["macs"], pruned["parameters"], accuracy)

    def costs(self, mode: str) -> dict[str, Any]:
        """Return the summary's `paper_rule`, `physical`, `layers`, `uncounted` and `paper`.

        In `mode` "mask" the network that is really there keeps its size, and so its cost.
        """
        example = example_images(self.dense.arch)
        before = physical_cost(self.dense.model, example)
        after = before if mode == "mask" else physical_cost(self.slim, example)
        by_rule = {
            name: paper_cost(self.dense.model, example, kept)
            for name, kept in {"dense": {}, "pruned": self.plan.num_kept()}.items()
        }
        return {
            "paper_rule": {name: counts(cost) for name, cost in by_rule.items()},
            "physical": {"dense": counts(before), "pruned": counts(after)},
            "uncounted": sorted({*before.uncounted, *after.uncounted}),
            "layers": _layers(self.plan, before, after),
            "paper": self.beside_paper(counts(by_rule["pruned"])),
        }


def make_plan(
    dense: Network,
    *,
    compress_rate: str,
    criterion: str,
    rank_folder: Path,
    checkpoint_sha256: str | None,
    seed: int,
    group: bool = False,
    round_to: int = 1,
) -> Planned:
    """Score the filters, plan which go, and make the small network.

    `group` prunes tied layers together, across sums too, at the mean of their rates; `round_to`
    rounds what stays of a layer up.

    Raises:
        ValueError: bad rates, missing or unfitting rank files, or weights that are NaN or Inf.
    """
    check_finite(dense)
    rates = expand_rates(compress_rate, dense.arch)
    graph = dense.trace()
    scores = _scores(dense, graph, criterion, rank_folder, checkpoint_sha256, seed)
    if group or round_to > 1:
        plan = _grouped_plan(graph, scores, rates, across_sums=group, round_to=round_to)
    else:
        plan = plan_by_rates(scores, rates)
    slim = remove_filters(dense.model, graph, plan.masks())
    return Planned(dense, graph, scores, plan, slim, tuple(rates))


def expand_rates(text: str, arch: str) -> list[float]:
    """Return the compress rates that `text` spells, one for each prunable conv of `arch`.

    Raises:
        ValueError: `arch` is unknown, `text` is malformed, or it spells too few or too many.
    """
    known = rank_layers(arch)
    return fit_rates(parse_rates(text), len(known.layers), known.ignored_rates, arch)


def _grouped_plan(
    graph: ChannelGraph,
    scores: Mapping[str, Tensor],
    rates: Sequence[float],
    *,
    across_sums: bool,
    round_to: int,
) -> PruningPlan:
    """Plan whole groups at the mean of their layers' rates; the plan is in rate order again."""
    groups = channel_groups(graph, across_sums=across_sums)
    rate_of = dict(zip(scores, rates, strict=True))
    plan = plan_groups(groups, scores, rate_of, round_to=round_to)
    by_conv = {layer.conv: layer for layer in plan.layers}
    return PruningPlan(tuple(by_conv[conv] for conv in scores))


def check_finite(dense: Network) -> None:
    """Refuse a network whose weights hold NaN or Inf, naming the first.

    Raises:
        ValueError: it does.
    """
    for name, tensor in dense.model.state_dict().items():
        broken = int((~tensor.isfinite()).sum())
        if broken:
            raise ValueError(
                f"the {dense.arch} to prune holds NaN or Inf in {name!r} "
                f"({broken} of {tensor.numel()} values): expected finite weights"
            )


def _scores(
    dense: Network,
    graph: ChannelGraph,
    criterion: str,
    rank_folder: Path,
    checkpoint_sha256: str | None,
    seed: int,
) -> dict[str, Tensor]:
    """Return {conv: [filters]} in rate order; higher is kept."""
    known = rank_layers(dense.arch)
    if criterion not in RANK_CRITERIA:
        scores = score_filters(dense.model, graph, criterion, seed=seed)
        return {layer.conv: scores[layer.conv] for layer in known.layers}
    ranks = read_ranks(rank_folder, dense.arch, known.layers, graph.filters())
    made_for = (read_manifest(rank_folder) or {}).get("checkpoint_sha256")
    if made_for is not None and made_for != checkpoint_sha256:
        note(f"warning: the ranks in {rank_folder} were made from another checkpoint")
    return ranks if criterion == "rank" else {conv: -rank for conv, rank in ranks.items()}


def _layers(plan: PruningPlan, before: Cost, after: Cost) -> list[dict[str, Any]]:
    dense, pruned = ({layer.name: layer for layer in cost.layers} for cost in (before, after))
    return [
        {
            **layer,
            "macs": {"dense": dense[layer["conv"]].macs, "pruned": pruned[layer["conv"]].macs},
            "inputs": {
                "dense": dense[layer["conv"]].inputs,
                "pruned": pruned[layer["conv"]].inputs,
            },
        }
        for layer in plan.as_list()
    ]
