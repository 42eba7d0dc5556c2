"""Plans for any traced network: a share of every group's channels goes, lowest scores first."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from models.channel_groups import ChannelGroup
from utils.pruning.compress_rates import num_removed
from utils.pruning.plan import LayerPlan, PruningPlan


def plan_groups(
    groups: Iterable[ChannelGroup],
    scores: Mapping[str, Tensor],
    rates: float | Mapping[str, float],
    *,
    round_to: int = 1,
    minimum: int = 1,
) -> PruningPlan:
    """Plan to remove int(rate * C) of the C channels of every group, the lowest-scoring ones.

    A channel scores the mean over its filters; ties go by index, the lower first. What stays is
    rounded up to a multiple of `round_to`, and is never fewer than `minimum`: the plan's reasons
    say where either held. Protected groups, and groups without scores, stay whole.

    Args:
        groups: of `models.channel_groups.channel_groups`; with `across_sums`, whole residual
            streams are pruned, without, the convs that feed a sum one by one.
        scores: {layer: [filters]}, higher is kept.
        rates: one rate for all, or {layer: rate}; a layer that is not named is not pruned.

    Raises:
        ValueError: a rate outside [0, 1), two rates for one group, an unknown layer, or
            `round_to` or `minimum` below 1.
    """
    groups = tuple(groups)
    for name, value in {"round_to": round_to, "minimum": minimum}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: expected at least 1")
    known = {layer for group in groups for layer in group.layers}
    named = [*scores, *(rates if isinstance(rates, Mapping) else ())]
    unknown = [layer for layer in named if layer not in known]
    if unknown:
        raise ValueError(f"no layer {unknown[0]!r} in the network: expected one of its groups'")
    layers: list[LayerPlan] = []
    for group in groups:
        layers += _plan_group(group, scores, _rate_of(group, rates), round_to, minimum)
    return PruningPlan(tuple(layers))


def _rate_of(group: ChannelGroup, rates: float | Mapping[str, float]) -> float:
    if not isinstance(rates, Mapping):
        return rates
    named = {layer: rates[layer] for layer in group.layers if layer in rates}
    if len(set(named.values())) > 1:
        raise ValueError(f"tied layers have different rates: {named}, expected one for all of them")
    return next(iter(named.values()), 0.0)


def _plan_group(
    group: ChannelGroup, scores: Mapping[str, Tensor], rate: float, round_to: int, minimum: int
) -> list[LayerPlan]:
    count = len(group.channels)
    wanted = count - num_removed(rate, count)
    rounded = min(count, -(-wanted // round_to) * round_to)
    reasons = [f"rounded up to a multiple of {round_to}"] if rounded > wanted else []
    if group.protected or not any(layer in scores for layer in group.layers):
        rounded = count
        reasons = ["protected: reaches the output" if group.protected else "not scored"]
    order = channel_scores(group, scores).sort(stable=True).indices.tolist()
    kept = set(order[count - rounded :])
    floored = _fill_up(group, kept, order, minimum)
    plans = []
    for layer in group.layers:
        others = [other for other in group.layers if other != layer]
        remarks = reasons + [f"floor of {minimum} held"] * (layer in floored)
        remarks += [f"tied with {', '.join(others)}"] * bool(others)
        filters = _filters_of(group, layer)
        stays = tuple(sorted(index for channel, index in filters if channel in kept))
        plans.append(LayerPlan(layer, rate, len(filters), stays, reason="; ".join(remarks)))
    return plans


def _fill_up(group: ChannelGroup, kept: set[int], order: list[int], minimum: int) -> set[str]:
    """Keep the best channels of layers with fewer than `minimum`; return those layers' names."""
    floored = set()
    place = {channel: i for i, channel in enumerate(order)}
    for layer in group.layers:
        own = sorted({channel for channel, _ in _filters_of(group, layer)}, key=place.get)
        if len(kept.intersection(own)) < min(minimum, len(own)):
            kept.update(own[-minimum:])
            floored.add(layer)
    return floored


def _filters_of(group: ChannelGroup, layer: str) -> list[tuple[int, int]]:
    """Return the layer's (channel of the group, filter) pairs."""
    return [
        (channel, index)
        for channel, members in enumerate(group.channels)
        for name, index in members
        if name == layer
    ]


def channel_scores(group: ChannelGroup, scores: Mapping[str, Tensor]) -> Tensor:
    """Return the mean score over each channel's scored filters: [C]."""
    plain = {layer: scores[layer].tolist() for layer in group.layers if layer in scores}
    sums = []
    for members in group.channels:
        found = [plain[layer][index] for layer, index in members if layer in plain]
        sums.append(sum(found) / len(found) if found else 0.0)
    return torch.tensor(sums, dtype=torch.float64)
