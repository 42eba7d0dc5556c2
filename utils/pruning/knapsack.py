"""The knapsack of a target in time: the levels that keep the most score within a time."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate
from statistics import median

from torch import Tensor

from utils.pruning.allocation import Loss
from utils.pruning.group_plan import channel_scores
from utils.pruning.rate_units import Levels, RateUnit
from utils.pruning.time_model import TimeModel

_NATS, _BEYOND = 1e-3, 100.0
_MACS_COUNT = 0.2
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


def branches_lost(
    model: TimeModel, scores: Mapping[str, Tensor], changes: Mapping[str, float]
) -> list[float]:
    """Return what is lost with each of the model's branches, in the scores of `scores_lost`.

    That is all that the filters before its last layer score (those of the last write the stream,
    which stays; they count where it has no others), times what it changes as a share of the median.

    Args:
        changes: {last layer of a branch: how much the network's output changes without it}, for all
            branches or for none.
    """
    own = [
        sum(
            float(scores[x].clamp(min=0).sum()) / len(scores[x]) ** 0.5
            for x in branch.layers
            if x in scores and (x != branch.last or len(branch.layers) == 1)
        )
        for branch in model.branches
    ]
    changed = [changes.get(branch.last, 1.0) for branch in model.branches]
    typical = (median(changed) if changed else 0.0) or 1.0
    return [lost * change / typical for lost, change in zip(own, changed, strict=True)]


@dataclass
class Knapsack:
    """Levels of units that cost time by a model, and what is lost at each level of each.

    `lost[k][level]` is that of unit k, and does not fall with the level; `whole_lost[b]` is what is
    lost with the model's branch b and all of its units. On top of that a share of the MACs that
    goes counts `macs_count` times the share.
    """

    units: Sequence[RateUnit]
    lost: Sequence[Sequence[float]]
    model: TimeModel
    whole_lost: Sequence[float] = ()
    macs_count: float = 0.0
    levels: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._count = len(self.units) + len(self.model.branches)
        self.levels = [0] * self._count
        self.stops = [self.model.stops(number) for number in range(self._count)]
        of_unit = [{x for group in unit.groups for x in group.layers} for unit in self.units]
        self._inner = [
            [number for number, layers in enumerate(of_unit) if layers <= set(branch.layers)]
            for branch in self.model.branches
        ]
        self._branch_of = {
            unit: len(self.units) + branch
            for branch, inner in enumerate(self._inner)
            for unit in inner
        }
        self._mates = [
            [
                len(self.units) + number
                for number, other in enumerate(self.model.branches)
                if other is not branch and other.stream == branch.stream
            ]
            for branch in self.model.branches
        ]

    def within(self, share: float) -> Levels:
        """Return levels that take at most `share` of the dense network's time, or the least there.

        Of all units, each some stops further than now, and all branches, that one moves that loses
        the least per time saved there and then; what is left of the time in the end is given back,
        to where most is gained. Units of branches that are dropped stand at level 0.
        """
        self.levels = [0] * self._count
        queue: list[tuple[float, int, int, int]] = []
        moved = 0
        for number in range(self._count):
            self._offer(queue, number, moved)
        while queue and self.model.share(self.levels) > share:
            _, number, when, level = heappop(queue)
            if when == moved:
                self.levels[number], moved = level, moved + 1
            self._offer(queue, number, moved)
        self._give_back(share)
        for inner, gone in zip(self._inner, self.levels[len(self.units) :], strict=True):
            for number in inner if gone else ():
                self.levels[number] = 0
        return tuple(self.levels)

    def _offer(self, queue: list, number: int, moved: int) -> None:
        """Put the unit's best move from now on into the queue, if any saves time."""
        here = self.levels[number]
        further = [level for level in self.stops[number] if level > here][:_AHEAD]
        moves = [
            (self.more_lost(number, level) / saved, level)
            for level in further
            if (saved := self.model.saved(self.levels, number, level)) > 0
        ]
        if moves:
            price, level = min(moves)
            heappush(queue, (price, number, moved, level))

    def more_lost(self, number: int, level: int) -> float:
        """Return what more is lost once a unit or branch goes from where it is to a level."""
        lost = self._score_lost(number, level)
        if self.macs_count:
            lost += self.macs_count * self.model.macs_saved(self.levels, number, level)
        return lost

    def _score_lost(self, number: int, level: int) -> float:
        """Return what more is lost of the scores.

        What a branch's own units have lost by then goes with it. The fewer branches of a stream are
        left, the more each counts: of n, where k are dropped already, n / (n - k) times as much.
        """
        here = self.levels[number]
        if number < len(self.units):
            if number in self._branch_of and self.levels[self._branch_of[number]]:
                return 0.0
            return self.lost[number][level] - self.lost[number][here]
        branch = number - len(self.units)
        lost = sum(self.lost[unit][self.levels[unit]] for unit in self._inner[branch])
        mates = [self.levels[mate] for mate in self._mates[branch]]
        dearer = (len(mates) + 1) / (len(mates) + 1 - sum(mates))
        return dearer * max(0.0, self.whole_lost[branch] - lost) * (level - here)

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
                gained = -self.more_lost(number, level)
                if level >= here or gained <= 0:
                    break
                if -self.model.saved(self.levels, number, level) <= left:
                    found.append((gained, number, level))
                    break
        return found


def knapsack_by_scores(
    model: TimeModel, scores: Mapping[str, Tensor], changes: Mapping[str, float]
) -> Knapsack:
    """Return the knapsack of `scores_lost` and `branches_lost`; `scores` are `normalized` ones.

    All MACs together count a fifth of what all units can lose: of what takes as long and scores
    about as much, that stays which computes more. On a ResNet-56 at half the time that leaves a
    fifth more MACs and as many right answers after two epochs (9,118 of 10,000, without 9,138);
    once as much as all units can lose leaves fewer (8,996).
    """
    lost = scores_lost(model, scores)
    whole_lost = branches_lost(model, scores, changes)
    all_macs = _MACS_COUNT * sum(of[-1] for of in lost)
    return Knapsack(model.units, lost, model, whole_lost, all_macs)
