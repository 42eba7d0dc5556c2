"""Pruning from Python: one call, from a model and images to a smaller model of the same class."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn as nn
from torch import Tensor

from utils.graph.inputs import placed
from utils.graph.network import Network
from utils.graph.values import mapped
from utils.metrics.cost import counts, physical_cost
from utils.paper.official import Official
from utils.paper.rates import CompressRates, rates_of_layers, rates_of_ratio, read_rates
from utils.planning.plan import Planned, by_ranks, check_finite, plan_rates
from utils.planning.rate_levels import RateLevels, rate_levels
from utils.pruning.allocation import global_steps, normalized
from utils.pruning.budget import TOLERANCE, levels_after
from utils.pruning.plan import PruningPlan
from utils.pruning.scores import score_filters
from utils.rank.estimation import estimate_ranks
from utils.rank.rank_layers import layers_at
from utils.removal.masks import ChannelMasks
from utils.removal.network_file import write_removed
from utils.runs.choices import RANK_CRITERIA

Criterion = str | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Pruned:
    """What `prune` made: the model, the plan, and the cost of one image before and after.

    `costs` is {"dense": {"macs", "parameters"}, "pruned": {...}}. Of a masked model, `keep_masked`
    makes zero again what an optimizer step has moved.
    """

    model: nn.Module
    plan: PruningPlan
    costs: Mapping[str, Mapping[str, int]]
    scores: Mapping[str, Tensor]
    mode: str
    keep_masked: Callable[[], None] = lambda: None

    @property
    def masks(self) -> dict[str, Tensor]:
        """{layer: bool [filters]}, True is kept, of the layers that lose filters."""
        return self.plan.masks()

    def save(self, path: str | Path) -> None:
        """Write the model as data; `load_removed`, and the commands with `--arch`, read it."""
        write_removed(Path(path), self.model, self.masks, form=self.mode)


def prune(
    model: nn.Module,
    example: Any,
    *,
    criterion: Criterion = "rank",
    images: Iterable[Any] | None = None,
    scores: Mapping[str, Tensor] | None = None,
    ratio: float | None = None,
    rates: Mapping[str, float] | None = None,
    target_macs: float | None = None,
    target_params: float | None = None,
    group: bool = False,
    round_to: int = 1,
    max_rate: float = 0.9,
    sites: str = "official",
    linear_criterion: str | None = None,
    mode: str = "remove",
    seed: int = 0,
) -> Pruned:
    """Return a smaller copy of a model, of its own class; `model` stays as it is.

    One of `ratio` (of every layer), `rates` ({layer: rate}, names may be patterns), `target_macs`
    and `target_params` (the share that is to remain) says how much goes.

    Args:
        example: one input, [1, C, H, W], or a tuple of inputs or a dict of them by name. A list of
            dicts among them says what each image holds, as detectors are trained.
        criterion: as of the command, or a function of a layer's weight [F, ...] that gives scores
            [F], of which the higher stay.
        images: what ranks are of: a loader or batches [N, C, H, W], or tuples that begin with one.
        scores: {layer: [F]}, in place of a criterion.
        mode: "remove" makes tensors smaller, "mask" holds zeros in them.

    Raises:
        ValueError: bad input, nothing to prune, or a target out of reach.
    """
    if mode not in ("remove", "mask"):
        raise ValueError(f"mode is {mode!r}: expected remove or mask")
    amounts = {"ratio": ratio, "rates": rates, "macs": target_macs, "params": target_params}
    given = [(kind, amount) for kind, amount in amounts.items() if amount is not None]
    if len(given) != 1:
        raise ValueError("prune: expected one of ratio, rates, target_macs and target_params")
    example = mapped(example, lambda tensor: tensor.cpu())
    dense = Network(model, "the model", example, 0, None, Official())
    check_finite(dense)
    if not dense.layers.layers:
        raise ValueError("the model has nothing to prune: every layer reaches its output")
    full: dict[str, int] = {}
    if scores is None:
        scores, full = _scores(dense, criterion, images, sites, linear_criterion, seed)
    scores = {x.conv: scores[x.conv] for x in dense.layers.scored() if x.conv in scores}
    levels = rate_levels(dense, scores, max_rate=max_rate, group=group, round_to=round_to)
    found = _rates(levels, normalized(scores, full), *given[0])
    return _pruned(plan_rates(scores, found, group=group, round_to=round_to), mode)


def _scores(
    dense: Network,
    criterion: Criterion,
    images: Iterable[Any] | None,
    sites: str,
    linear_criterion: str | None,
    seed: int,
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return {layer: scores [F]}, and of those that are ranks {layer: full rank of its maps}."""
    weights = {layer.conv: layer for layer in dense.layers.scored()}
    if callable(criterion):
        return {x: criterion(dense.graph.weight(dense.model, x)) for x in weights}, {}
    if criterion not in RANK_CRITERIA:
        return score_filters(dense.model, dense.graph, criterion, seed=seed), {}
    if images is None:
        raise ValueError(f"criterion {criterion!r} needs images: expected a loader or batches")
    layers = layers_at(dense, sites)
    batches = [images] if isinstance(images, Tensor) else images
    firsts = (batch[0] if isinstance(batch, list | tuple) else batch for batch in batches)
    found = estimate_ranks(dense.model, layers.sites(), (placed(x, dense.model) for x in firsts))
    ranked = layers.scored_by_rank()
    scores = by_ranks(criterion, {layer.conv: found[layer.site].mean for layer in ranked})
    full = {layer.conv: min(found[layer.site].map_size) for layer in ranked}
    if linear_criterion is not None:
        scores = score_filters(dense.model, dense.graph, linear_criterion, seed=seed) | scores
    return scores, full


def _rates(
    levels: RateLevels, scores: Mapping[str, Tensor], kind: str, amount: Any
) -> CompressRates:
    """Return the compress rates that the amount says; `scores` are comparable between layers."""
    dense = levels.dense
    if kind == "ratio":
        return read_rates(rates_of_ratio((amount,), dense), dense)
    if kind == "rates":
        return read_rates(rates_of_layers(amount, dense), dense)
    if not 0 < amount < 1:
        raise ValueError(f"target_{kind} is {amount:g}: expected more than 0 and less than 1")
    steps, left_of = global_steps(levels.units, scores), levels.counter(kind)
    least = left_of(levels_after(steps, len(levels.units)))
    if least > amount * (1 + TOLERANCE):
        raise ValueError(
            f"target_{kind} {amount:g} is out of reach: expected at least {least:.4f}, what stays "
            "at the highest rates"
        )
    return levels.rates(levels.nearest(steps, left_of, amount))


def _pruned(planned: Planned, mode: str) -> Pruned:
    dense, model, keep_masked = planned.dense, planned.slim, lambda: None
    if mode == "mask":
        model = copy.deepcopy(dense.model)
        masks = ChannelMasks(model, planned.graph, planned.plan.masks())
        masks.apply()
        keep_masked = masks.apply
    costs = {
        "dense": counts(physical_cost(dense.model, dense.image)),
        "pruned": counts(physical_cost(planned.slim, dense.image)),
    }
    return Pruned(model, planned.plan, costs, planned.scores, mode, keep_masked)
