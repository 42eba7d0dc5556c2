"""Budgets: how far along an allocation's steps a network costs what it may."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product

from utils.pruning.rate_units import Levels, RateUnit

TOLERANCE = 0.01  # of the target
_NEAR_ENOUGH = 0.5 * TOLERANCE  # no conv is moved off its place in the order for less

CostOf = Callable[[Levels], float]  # the share of the dense network's cost that is then left


def levels_after(steps: Sequence[int], num_units: int) -> tuple[int, ...]:
    """Return the level of every unit once the steps are taken."""
    taken = Counter(steps)
    return tuple(taken[number] for number in range(num_units))


def search(steps: Sequence[int], num_units: int, cost_of: CostOf, target: float) -> tuple[int, ...]:
    """Return the levels, on the way along the steps, whose cost is nearest to `target`.

    Bisects the number of steps, which ends early where the cost is within half the tolerance.
    """
    found: dict[tuple[int, ...], float] = {}
    low, high = 0, len(steps)
    while low <= high:
        middle = (low + high) // 2
        levels = levels_after(steps[:middle], num_units)
        found[levels] = cost_of(levels)
        if _miss(found[levels], target) <= _NEAR_ENOUGH:
            break
        low, high = (middle + 1, high) if found[levels] > target else (low, middle - 1)
    return min(found, key=lambda levels: _miss(found[levels], target))


def land(
    units: Sequence[RateUnit], levels: Levels, cost_of: CostOf, target: float
) -> tuple[int, ...]:
    """Return levels whose cost is nearer to `target`: single units go up or down a rung.

    Each time that unit moves which comes nearest, until the cost is within half the tolerance.
    Where no single one brings it within the tolerance, two move at once.
    """
    best, miss = tuple(levels), _miss(cost_of(tuple(levels)), target)
    for at_once, enough in ((1, _NEAR_ENOUGH), (2, TOLERANCE)):
        start = None
        while start != best and miss > enough:
            start = best
            for move in _moves(units, start, at_once):
                found = _miss(cost_of(move), target)
                if found < miss:
                    best, miss = move, found
                if miss <= enough:
                    break
    return best


def _moves(
    units: Sequence[RateUnit], levels: tuple[int, ...], at_once: int
) -> Iterator[tuple[int, ...]]:
    """Yield the levels where so many units stand a rung higher or lower."""
    for numbers in combinations(range(len(units)), at_once):
        for rungs in product((-1, 1), repeat=at_once):
            moved = list(levels)
            for number, rung in zip(numbers, rungs, strict=True):
                moved[number] += rung
            if all(0 <= moved[number] < len(units[number].rungs) for number in numbers):
                yield tuple(moved)


def _miss(cost: float, target: float) -> float:
    return abs(cost - target) / target
