"""Plans for any traced network: a share of every group's channels goes, lowest scores first."""

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction

import torch
from torch import Tensor

from utils.graph.groups import ChannelGroup
from utils.pruning.compress_rates import WHOLE, num_removed
from utils.pruning.plan import LayerPlan, PruningPlan, check_finite


def plan_groups(
    groups: Iterable[ChannelGroup],
    scores: Mapping[str, Tensor],
    rates: float | Mapping[str, float],
    *,
    round_to: int = 1,
    minimum: int = 1,
    part: Fraction = WHOLE,
) -> PruningPlan:
    """Plan to remove int(rate * C) of the C channels of every group, the lowest-scoring ones.

    A channel scores the mean over its filters; ties go by index, the lower first. What stays is
    rounded up to a multiple of `round_to` filters, and is never fewer than `minimum` channels a
    group: the plan's reasons say where either held. Protected groups, and groups without
    scores, stay whole.

    Args:
        groups: of `utils.graph.groups.channel_groups`; with `across_sums`, whole residual
            streams are pruned, without, the convs that feed a sum one by one.
        scores: {layer: [filters]}, higher is kept.
        rates: one rate for all, or {layer: rate}, of which a group takes the mean over its layers
            that are named, and is left whole if none is.
        part: of n channels to go, ceil(part * n) are planned.

    Raises:
        ValueError: a rate outside [0, 1), an unknown layer, scores that are NaN or Inf or not one
            a filter, or `round_to` or `minimum` below 1.
    """
    groups = tuple(groups)
    for name, value in {"round_to": round_to, "minimum": minimum}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: expected at least 1")
    filters = _num_filters(groups)
    _check(scores, rates, filters)
    kept: dict[str, list[int]] = {}
    reasons: dict[str, list[str]] = {}
    for group in groups:
        wanted = len(group.channels) - num_removed(
            _rate_of(group, rates), len(group.channels), part
        )
        stays, why = _keep(group, scores, wanted, round_to, minimum)
        for layer, index in (filter for channel in stays for filter in group.channels[channel]):
            kept.setdefault(layer, []).append(index)
        for layer in group.layers:
            reasons.setdefault(layer, []).extend([*why, *_ties(group, layer)])
    return PruningPlan(
        tuple(
            LayerPlan(
                layer,
                rates.get(layer, 0.0) if isinstance(rates, Mapping) else rates,
                filters[layer],
                tuple(sorted(kept[layer])),
                reason="; ".join(dict.fromkeys(why)),
            )
            for layer, why in reasons.items()
        )
    )


def _check(
    scores: Mapping[str, Tensor], rates: float | Mapping[str, float], filters: Mapping[str, int]
) -> None:
    named = [*scores, *(rates if isinstance(rates, Mapping) else ())]
    unknown = [layer for layer in named if layer not in filters]
    if unknown:
        raise ValueError(f"no layer {unknown[0]!r} in the network: expected one of its groups'")
    for layer, score in scores.items():
        check_finite(layer, score)
        if score.shape != (filters[layer],):
            expected = f"expected [{filters[layer]}], got {list(score.shape)}"
            raise ValueError(f"scores of {layer!r}: {expected}")


def _rate_of(group: ChannelGroup, rates: float | Mapping[str, float]) -> float:
    if not isinstance(rates, Mapping):
        return rates
    named = [rates[layer] for layer in group.layers if layer in rates]
    # As fractions, since the mean of equal rates has to be that rate: int() is next.
    return float(sum(map(Fraction, named)) / len(named)) if named else 0.0


def _keep(
    group: ChannelGroup, scores: Mapping[str, Tensor], wanted: int, round_to: int, minimum: int
) -> tuple[list[int], list[str]]:
    """Return the channels of the group that stay, `wanted` or more, and why more."""
    count = len(group.channels)
    if group.protected or not any(layer in scores for layer in group.layers):
        why = "protected: reaches the output" if group.protected else "not scored"
        return list(range(count)), [why]
    floored = min(count, max(wanted, minimum))
    stays = group.rounded_up(floored, round_to)
    why = [f"floor of {minimum} held"] * (floored > wanted)
    why += [f"rounded up to a multiple of {round_to}"] * (stays > floored)
    return channel_scores(group, scores).sort(stable=True).indices[count - stays :].tolist(), why


def _ties(group: ChannelGroup, layer: str) -> list[str]:
    others = [other for other in group.layers if other != layer]
    return [f"tied with {', '.join(others)}"] if others else []


def _num_filters(groups: Iterable[ChannelGroup]) -> Counter[str]:
    """Return {layer: number of its filters}."""
    members = (filter for group in groups for channel in group.channels for filter in channel)
    return Counter(layer for layer, _ in members)


def channel_scores(group: ChannelGroup, scores: Mapping[str, Tensor]) -> Tensor:
    """Return the mean score over each channel's scored filters: [C]."""
    plain = {layer: scores[layer].tolist() for layer in group.layers if layer in scores}
    sums = []
    for members in group.channels:
        found = [plain[layer][index] for layer, index in members if layer in plain]
        sums.append(sum(found) / len(found) if found else 0.0)
    return torch.tensor(sums, dtype=torch.float64)
