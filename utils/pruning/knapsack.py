"""The knapsack of a target in time: the levels that keep the most score within a time."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate

from torch import Tensor

from utils.pruning.allocation import Loss
from utils.pruning.group_plan import channel_scores
from utils.pruning.rate_units import Levels, RateUnit
from utils.pruning.time_model import TimeModel

_NATS, _BEYOND = 1e-3, 100.0
_AHEAD = 6  # how many stops a unit may jump at once, where a single one saves little


def scores_lost(model: TimeModel, scores: Mapping[str, Tensor]) -> list[list[float]]:
    """Return what each of the model's units has lost of its `normalized` scores at each level.

    A filter counts its score by the square root of the number of filters of its layer: between
    what a filter of average score counts (the same everywhere) and what a layer does. A channel
    counts the sum over its filters, once for every layer that reads it: a channel of a stream,
    which n layers write and n layers read, stands for n times n ways through the network, one
    between two layers for a single one. Where a layer has negative scores its lowest counts as
    none. (On a ResNet-56 at 60% of the time this keeps as many images right as a scan's losses.)
    """
    scaled = {
        layer: (score - score.min().clamp(max=0)) / len(score) ** 0.5
        for layer, score in scores.items()
    }
    found = []
    for unit_number, unit in enumerate(model.units):
        lost = [0.0] * len(unit.rungs)
        for number, group in enumerate(unit.groups):
            filters = sum(layer in scaled for layer, _ in group.channels[0])
            weight = filters * model.readers(unit_number, number)
            ordered = channel_scores(group, scaled).sort().values * weight
            sums = [0.0, *accumulate(ordered.tolist())]
            for level, rung in enumerate(unit.rungs):
                lost[level] += sums[len(ordered) - rung.stays[number]]
        found.append(lost)
    return found


def scan_lost(unit: RateUnit, curve: Mapping[float, Loss]) -> list[float]:
    """Return what a unit loses at each level: of accuracy, with a little of the nats, by a scan.

    Between scanned rates it is interpolated; beyond the highest it loses more than any other.
    """
    rates = sorted(curve)
    lost = [curve[rate][0] + _NATS * curve[rate][1] for rate in rates]
    found = []
    for rung in unit.rungs:
        start = float(rung.start)
        right = bisect_left(rates, start)
        if right == len(rates):
            found.append(max(found[-1], lost[-1] + _BEYOND))
        elif rates[right] == start:
            found.append(lost[right])
        else:
            share = (start - rates[right - 1]) / (rates[right] - rates[right - 1])
            found.append(lost[right - 1] * (1 - share) + lost[right] * share)
    return found


@dataclass
class Knapsack:
    """Levels of units that cost time by a model, and what is lost at each level of each.

    `lost[k][level]` is that of unit k, and does not fall with the level.
    """

    units: Sequence[RateUnit]
    lost: Sequence[Sequence[float]]
    model: TimeModel
    levels: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.levels = [0] * len(self.units)
        self.stops = [self.model.stops(number) for number in range(len(self.units))]

    def within(self, share: float) -> Levels:
        """Return levels that take at most `share` of the dense network's time, or the least there.

        Of all units, each some stops further than now, that one moves that loses the least per
        time saved there and then; what is left of the time in the end is given back, to where
        most is gained.
        """
        self.levels = [0] * len(self.units)
        queue: list[tuple[float, int, int, int]] = []
        moved = 0
        for number in range(len(self.units)):
            self._offer(queue, number, moved)
        while queue and self.model.share(self.levels) > share:
            _, number, when, level = heappop(queue)
            if when == moved:
                self.levels[number], moved = level, moved + 1
            self._offer(queue, number, moved)
        self._give_back(share)
        return tuple(self.levels)

    def _offer(self, queue: list, number: int, moved: int) -> None:
        """Put the unit's best move from now on into the queue, if any saves time."""
        here, lost = self.levels[number], self.lost[number]
        further = [level for level in self.stops[number] if level > here][:_AHEAD]
        moves = [
            ((lost[level] - lost[here]) / saved, level)
            for level in further
            if (saved := self.model.saved(self.levels, number, level)) > 0
        ]
        if moves:
            price, level = min(moves)
            heappush(queue, (price, number, moved, level))

    def _give_back(self, share: float) -> None:
        """Take units back to earlier stops while there is time for it, the most gained first."""
        while True:
            left = share - self.model.share(self.levels)
            best = max(self._back(left), default=None)
            if best is None:
                return
            _, number, level = best
            self.levels[number] = level

    def _back(self, left: float) -> list[tuple[float, int, int]]:
        """Return (score gained, unit, level) of the moves back that take no more than `left`."""
        found = []
        for number, here in enumerate(self.levels):
            for level in (0, *self.stops[number]):
                gained = self.lost[number][here] - self.lost[number][level]
                if level >= here or gained <= 0:
                    break
                if -self.model.saved(self.levels, number, level) <= left:
                    found.append((gained, number, level))
                    break
        return found
