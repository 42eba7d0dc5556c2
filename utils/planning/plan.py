"""Making a pruning plan: a network, its scores and the compress rates, without any images."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.groups import channel_groups
from utils.graph.network import Network
from utils.graph.prunable import RankLayers
from utils.metrics.accuracy import Accuracy
from utils.metrics.cost import Cost, counts, paper_cost, physical_cost
from utils.paper.rates import CompressRates, read_rates
from utils.planning.counting import beside_paper
from utils.pruning.compress_rates import WHOLE
from utils.pruning.group_plan import plan_groups
from utils.pruning.plan import PruningPlan, plan_by_rates
from utils.pruning.scores import score_filters
from utils.rank.rank_files import read_manifest, read_ranks
from utils.removal.surgery import remove_filters
from utils.runs.choices import RANK_CRITERIA

Planner = Callable[..., PruningPlan]  # of CompressRates and, on the way to them, the part to go


@dataclass(frozen=True)
class Planned:
    """A dense network, what is to go, and the small network that is then left."""

    dense: Network
    graph: ChannelGraph
    scores: Mapping[str, Tensor]  # {conv: [filters]}
    plan: PruningPlan
    slim: nn.Module
    rates: CompressRates
    uniform: bool  # every conv loses what its own rate says: not grouped, nor rounded
    align: str = "compact"  # how the small network leaves channels that do not line up
    aligned_by: Mapping[str, Any] | None = None  # how that was chosen, where it was

    def compress_rate(self) -> str:
        """Return the compress rates that were used, in the official grammar."""
        return self.rates.text()

    def beside_paper(
        self, pruned: Mapping[str, int], accuracy: Accuracy | None = None
    ) -> dict[str, Any] | None:
        """Return the published row of these rates beside what was measured, None without one.

        `pruned` holds macs and parameters by the paper rule.
        """
        return beside_paper(self.rates, pruned, accuracy)

    def _counted(self) -> dict[str, int]:
        """Return {conv: filters that stay} as the official counter of MACs takes them.

        It counts convs alone; linears that are pruned, too, do not count.
        """
        if self.uniform:
            return self.rates.kept(self.graph.filters(), as_counted=True)
        modules = dict(self.dense.model.named_modules())
        kept = self.plan.num_kept().items()
        return {layer: n for layer, n in kept if isinstance(modules.get(layer), nn.Conv2d)}

    def costs(self, mode: str) -> dict[str, Any]:
        """Return the summary's `paper_rule`, `physical`, `layers`, `uncounted` and `paper`.

        In `mode` "mask" the network that is really there keeps its size, and so its cost.
        """
        example = self.dense.image
        before = physical_cost(self.dense.model, example)
        after = before if mode == "mask" else physical_cost(self.slim, example)
        by_rule = {
            name: paper_cost(self.dense.model, example, kept, self.dense.official.counted_inputs)
            for name, kept in {"dense": {}, "pruned": self._counted()}.items()
        }
        return {
            "paper_rule": {name: counts(cost) for name, cost in by_rule.items()},
            "physical": {"dense": counts(before), "pruned": counts(after)},
            "uncounted": sorted({*before.uncounted, *after.uncounted}),
            "layers": _layers(self.plan, self.scores, before, after),
            "paper": self.beside_paper(counts(by_rule["pruned"])),
        }


def make_plan(
    dense: Network,
    *,
    compress_rate: str,
    criterion: str,
    rank_folder: Path,
    seed: int,
    layout: str = "hrank",
    group: bool = False,
    round_to: int = 1,
    force: bool = False,
) -> Planned:
    """Score the filters, plan which go, and make the small network.

    `force` takes ranks that another checkpoint gave; for the rest see `plan_rates`.

    Raises:
        ValueError: bad rates, or what `score_layers` refuses.
    """
    rates = read_rates(compress_rate, dense, layout)
    how = {"criterion": criterion, "rank_folder": rank_folder, "seed": seed, "force": force}
    return plan_rates(score_layers(dense, **how), rates, group=group, round_to=round_to)


def plan_rates(
    scores: Mapping[str, Tensor],
    rates: CompressRates,
    *,
    group: bool = False,
    round_to: int = 1,
    dropped: Collection[str] = (),
) -> Planned:
    """Plan which filters of the rates' network go, by their scores, and make the small network.

    `group` prunes tied layers together, across sums too, at the mean of their rates; `round_to`
    rounds what stays of a layer up; the layers in `dropped`, of branches, keep nothing.
    """
    dense = rates.network
    plan = planner(dense, scores, group=group, round_to=round_to)(rates).without(dropped)
    slim = remove_filters(dense.model, dense.graph, plan.masks())
    uniform = not dropped and _one_by_one(dense, group=group, round_to=round_to)
    return Planned(dense, dense.graph, scores, plan, slim, rates, uniform)


def _one_by_one(dense: Network, *, group: bool, round_to: int) -> bool:
    """True if every conv loses what its own rate says; else groups of channels do."""
    return not (group or round_to > 1 or dense.layers.by_group)


def planner(
    dense: Network, scores: Mapping[str, Tensor], *, group: bool = False, round_to: int = 1
) -> Planner:
    """Return the function that makes the plan of all rank layers from compress rates.

    It takes the rates and, on the way to them, which part of what goes is to be gone.
    """
    filters = dense.graph.filters()
    one_by_one = _one_by_one(dense, group=group, round_to=round_to)
    groups = () if one_by_one else channel_groups(dense.graph, across_sums=group)

    def plan(rates: CompressRates, part: Fraction = WHOLE) -> PruningPlan:
        rate_of = rates.of_convs(filters)
        if one_by_one:
            found = plan_by_rates(scores, [rate_of[conv] for conv in scores], part)
        else:
            found = plan_groups(groups, scores, rate_of, round_to=round_to, part=part)
        return _in_rate_order(found, dense.layers, scores)

    return plan


def _in_rate_order(
    plan: PruningPlan, known: RankLayers, scores: Mapping[str, Tensor]
) -> PruningPlan:
    """Return the plan of all rank layers, those included that follow another, in rate order."""
    by_conv = {layer.conv: layer for layer in plan.layers}
    for layer in known.layers:
        leader = by_conv.get(layer.follows)
        if leader is not None and by_conv.get(layer.conv, leader).kept == leader.kept:
            reason = f"follows {layer.follows}: the same channels"
            by_conv[layer.conv] = replace(leader, conv=layer.conv, reason=reason)
        elif layer.no_rank and layer.conv not in scores:
            reason = f"kept whole: {layer.no_rank}, so no rank"
            by_conv[layer.conv] = replace(by_conv[layer.conv], reason=reason)
    return PruningPlan(tuple(by_conv[layer.conv] for layer in known.layers))


def check_finite(dense: Network) -> None:
    """Refuse a network whose weights hold NaN or Inf, naming the first.

    Raises:
        ValueError: it does.
    """
    for name, tensor in dense.model.state_dict().items():
        broken = int((~tensor.isfinite()).sum())
        if broken:
            raise ValueError(
                f"the {dense.spec} to prune holds NaN or Inf in {name!r} "
                f"({broken} of {tensor.numel()} values): expected finite weights"
            )


def _check_made_for(
    checkpoint_sha256: str | None, rank_folder: Path, normalization: str | None
) -> None:
    """Refuse ranks whose manifest says that they are another network's, or of other images.

    Raises:
        ValueError: it does; a folder without a manifest says nothing.
    """
    manifest = read_manifest(rank_folder) or {}
    made_for = manifest.get("checkpoint_sha256", checkpoint_sha256)
    if made_for != checkpoint_sha256:
        raise ValueError(
            f"the ranks in {rank_folder} were made from {manifest.get('checkpoint')}, a file with "
            "other bytes than the checkpoint to prune: expected ranks of the same network, "
            "which `python rank_generation.py` writes, or --force"
        )
    ranked = manifest.get("normalization", normalization)
    if normalization is not None and ranked != normalization:
        raise ValueError(
            f"the ranks in {rank_folder} were made of images with --normalization {ranked}: "
            f"expected {normalization}, as here, or --force"
        )


def by_ranks(criterion: str, ranks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ranks {conv: [F]} as the scores of a criterion of ranks, of which the higher stay."""
    return {conv: rank if criterion == "rank" else -rank for conv, rank in ranks.items()}


def score_layers(
    dense: Network,
    *,
    criterion: str,
    rank_folder: Path,
    seed: int,
    force: bool = False,
    normalization: str | None = None,
    linear_criterion: str | None = None,
) -> dict[str, Tensor]:
    """Return {conv: [filters]} in rate order, without convs that follow another; higher is kept.

    Layers that have no rank are left out or, with `linear_criterion`, scored by that.

    Raises:
        ValueError: missing or unfitting rank files, ranks of another checkpoint without `force`, or
            weights that are NaN or Inf.
    """
    check_finite(dense)
    if criterion in RANK_CRITERIA and not force:
        _check_made_for(dense.checkpoint_sha256, rank_folder, normalization)
    layers, scores = dense.layers.scored(), {}
    if criterion in RANK_CRITERIA:
        ranked, filters = dense.layers.scored_by_rank(), dense.graph.filters()
        ranks = read_ranks(rank_folder, dense.spec, ranked, filters)
        scores = by_ranks(criterion, ranks)
        criterion = linear_criterion or ""
    if criterion:
        scores = score_filters(dense.model, dense.graph, criterion, seed=seed) | scores
        for layer in (layer for layer in layers if layer.conv not in scores):
            raise ValueError(
                f"criterion {criterion} does not score {layer.conv!r} of {dense.spec}: expected a "
                "criterion that scores every layer with a rate"
            )
    return {layer.conv: scores[layer.conv] for layer in layers if layer.conv in scores}


def _layers(
    plan: PruningPlan, scores: Mapping[str, Tensor], before: Cost, after: Cost
) -> list[dict[str, Any]]:
    dense, pruned = ({layer.name: layer for layer in cost.layers} for cost in (before, after))
    return [
        {
            **layer,
            **_cut(layer, scores.get(layer["conv"])),
            **{
                name: {
                    "dense": getattr(dense.get(layer["conv"]), name, 0),  # it may compute a weight
                    "pruned": getattr(pruned.get(layer["conv"]), name, 0),  # it may be emptied
                }
                for name in ("macs", "inputs")
            },
        }
        for layer in plan.as_list()
    ]


def _cut(layer: Mapping[str, Any], scores: Tensor | None) -> dict[str, Any]:
    """Return the score at a layer's cut, if one parts what goes from what stays.

    `tied_share` is the share of the filters that have it, where a kept one is among them.
    """
    kept = torch.zeros(layer["filters"], dtype=torch.bool)
    kept[layer["kept"]] = True
    if scores is None or kept.all() or not kept.any() or scores[~kept].max() > scores[kept].min():
        return {"tied_share": 0.0}
    cut = scores[~kept].max()
    tied = bool(scores[kept].min() == cut)
    share = float((scores == cut).double().mean()) if tied else 0.0
    return {"cut_score": float(cut), "tied_at_cut": tied, "tied_share": share}
