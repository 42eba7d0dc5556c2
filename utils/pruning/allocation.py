"""Allocations: the order in which units lose channels, a list of units by index.

Each entry takes its unit up one rung; how far along the list a network goes, a budget says.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from math import inf

import torch
from torch import Tensor

from utils.pruning.group_plan import channel_scores
from utils.pruning.rate_units import Levels, RateUnit
from utils.pruning.sensitivity import ScanPoint


def normalized(
    scores: Mapping[str, Tensor], full_ranks: Mapping[str, int] | None = None
) -> dict[str, Tensor]:
    """Return the scores {conv: [F]} made comparable between layers.

    Ranks are divided by the full rank of the conv's maps, min(h, w): a rank says what share of a
    map's directions is used, and without that big maps would always outscore small ones. Scores of
    other criteria, and of layers without maps, are divided by the layer's mean magnitude: they grow
    with fan-in and with the scale of the weights, which the norm behind the conv takes out again,
    so that only how filters of one layer compare with each other means anything.
    """
    known = full_ranks or {}
    sizes = {
        conv: known.get(conv) or float(score.double().abs().mean()) or 1.0
        for conv, score in scores.items()
    }
    return {conv: score.double() / sizes[conv] for conv, score in scores.items()}


def uniform_steps(units: Sequence[RateUnit]) -> list[int]:
    """Return the order of steps, units by index, in which the same rate rises everywhere.

    int(r * f) jumps for all convs of one width at once; within such a jump the convs go one by one,
    the first of the network first, so that the last percent is landed by single filters.
    """
    rungs = [(rung.start, number) for number, unit in enumerate(units) for rung in unit.rungs[1:]]
    return [number for _, number in sorted(rungs)]


def global_steps(units: Sequence[RateUnit], scores: Mapping[str, Tensor]) -> list[int]:
    """Return the order of steps in which the lowest `normalized` scores of all layers go first.

    A rung counts the mean over the channels that it removes, and no less than those below it.
    """
    steps = []
    for number, unit in enumerate(units):
        ordered = [channel_scores(group, scores).sort().values for group in unit.groups]
        highest = -inf
        for before, after in pairwise(rung.stays for rung in unit.rungs):
            gone = [
                values[len(values) - had : len(values) - has]
                for values, had, has in zip(ordered, before, after, strict=True)
            ]
            highest = max(highest, float(torch.cat(gone).mean()))
            steps.append((highest, number))
    return [number for _, number in sorted(steps)]


Loss = tuple[float, float]  # of a unit pruned alone: share of the images, and nats, both rising


def losses(
    units: Sequence[RateUnit], points: Sequence[ScanPoint], dense: Loss
) -> list[dict[float, Loss]]:
    """Return what each unit alone loses at the scanned rates, {rate: (accuracy, nats)}.

    Where a unit is several that were scanned, their losses add up. Noise that makes a higher rate
    better than a lower one is taken out: a loss is never less than one at a lower rate.

    Args:
        dense: accuracy (0 to 1) and cross-entropy of the dense network on the scan's images.

    Raises:
        ValueError: the scan has not all its rates of a conv.
    """
    rates = sorted({point.rate for point in points})
    found = []
    for unit in units:
        layers = {layer for group in unit.groups for layer in group.layers}
        mine = [point for point in points if layers.intersection(point.layers)]
        scanned = Counter(layer for point in mine for layer in point.layers)
        for layer in sorted(layers):
            if not scanned[layer] or scanned[layer] % len(rates):
                raise ValueError(
                    f"the scan has {scanned[layer]} points of {layer!r}: expected all its "
                    f"{len(rates)} rates; the same scan command continues where it stopped"
                )
        accuracy, nats, curve = 0.0, 0.0, {0.0: (0.0, 0.0)}
        for rate in rates:
            at = [point for point in mine if point.rate == rate]
            accuracy = max(accuracy, sum(dense[0] - p.answered[0] / p.images for p in at))
            nats = max(nats, sum(p.answered[1] - dense[1] for p in at))
            curve[rate] = accuracy, nats
        found.append(curve)
    return found


def sensitivity_steps(
    units: Sequence[RateUnit],
    curves: Sequence[Mapping[float, Loss]],
    cost_of: Callable[[Levels], float],
    *,
    until: float = 0.0,
) -> list[int]:
    """Return the order of steps that loses least accuracy for what it saves, from state to state.

    Greedy: of all units, each one scanned rate higher than now, the one goes up that loses the
    least accuracy per cost saved there and then; of equal ones that which loses the least in
    cross-entropy. No unit goes beyond its highest scanned rate. It ends where `until` of the cost
    is left. What an increment saves is worked out anew only once it stands first: it falls as the
    network shrinks, but for streams that several convs keep alive.
    """
    stops = [_stops(unit, curve) for unit, curve in zip(units, curves, strict=True)]
    at, levels, steps = [0] * len(units), [0] * len(units), []
    left, queue = cost_of(tuple(levels)), []

    def offer(number: int) -> None:
        if at[number] + 1 == len(stops[number]):
            return
        (_, *before), (level, *after) = stops[number][at[number] : at[number] + 2]
        cost = cost_of((*levels[:number], level, *levels[number + 1 :]))
        saved = max(left - cost, 1e-12)
        price = tuple((b - a) / saved for a, b in zip(before, after, strict=True))
        heappush(queue, (price, number, len(steps), cost))

    for number in range(len(units)):
        offer(number)
    while queue and left > until:
        _, number, when, cost = heappop(queue)
        if when == len(steps):
            at[number] += 1
            level = stops[number][at[number]][0]
            steps += [number] * (level - levels[number])
            levels[number], left = level, cost
        offer(number)
    return steps


def _stops(unit: RateUnit, curve: Mapping[float, Loss]) -> list[tuple[int, float, float]]:
    """Return (level, accuracy lost, nats lost) where the scan says what is lost.

    The unit's highest level, if it lies between two scanned rates, counts what the higher loses.
    """
    starts = [float(rung.start) for rung in unit.rungs]
    stops: dict[int, tuple[int, float, float]] = {}
    for rate, lost in curve.items():
        level = bisect_right(starts, rate) - 1
        stops.setdefault(level, (level, *lost))
    return list(stops.values())
