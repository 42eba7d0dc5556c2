"""Rate units: what goes by one compress rate, and the rates that make a difference to it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from utils.graph.groups import ChannelGroup
from utils.pruning.compress_rates import num_removed

Levels = Sequence[int]  # the rung that each unit stands on


@dataclass(frozen=True)
class Rung:
    """Rates from `start` on leave `stays` channels of a unit's groups; `rate` is one of them.

    It is the one with the fewest decimals, the lowest of those.
    """

    start: Fraction
    rate: float
    stays: tuple[int, ...]


@dataclass(frozen=True)
class RateUnit:
    """Groups of channels that go by one compress rate, and the rates that make a difference.

    `positions` are where that rate stands among the network's: several where groups tie convs that
    have rates of their own.
    """

    positions: tuple[int, ...]
    groups: tuple[ChannelGroup, ...]
    rungs: tuple[Rung, ...]


def rate_units(
    groups: Iterable[ChannelGroup],
    position_of: Mapping[str, int],
    *,
    max_rate: float,
    round_to: int = 1,
) -> tuple[RateUnit, ...]:
    """Return the units in the order of their rates; no group loses more than `max_rate` of itself.

    Args:
        groups: of `channel_groups`.
        position_of: {conv: position of its compress rate} of the convs that may be pruned.
        round_to: what stays of a group is rounded up to a multiple of so many filters.
    """
    units: list[tuple[set[int], list[ChannelGroup]]] = []
    for group in groups:
        positions = {position_of[layer] for layer in group.layers if layer in position_of}
        if group.protected or not positions:
            continue
        tied = [unit for unit in units if unit[0] & positions]
        members = [member for unit in tied for member in unit[1]]
        units = [unit for unit in units if unit not in tied]
        units.append((positions.union(*(unit[0] for unit in tied)), [*members, group]))
    return tuple(
        RateUnit(
            tuple(sorted(positions)),
            tuple(members),
            _rungs(members, max_rate, round_to),
        )
        for positions, members in sorted(units, key=lambda unit: min(unit[0]))
    )


def _rungs(groups: Sequence[ChannelGroup], max_rate: float, round_to: int) -> tuple[Rung, ...]:
    sizes = [len(group.channels) for group in groups]

    def stays(rate: float | Fraction) -> tuple[int, ...]:
        left = [size - num_removed(rate, size) for size in sizes]
        return tuple(g.rounded_up(n, round_to) for g, n in zip(groups, left, strict=True))

    every = sorted({Fraction(gone, size) for size in sizes for gone in range(size)})
    starts = [0, *(after for before, after in pairwise(every) if stays(before) != stays(after))]
    starts = [Fraction(start) for start in starts if float(start) <= max_rate]
    return tuple(Rung(start, _decimal(start, max_rate, stays), stays(start)) for start in starts)


def _decimal(start: Fraction, max_rate: float, stays: Callable[..., tuple[int, ...]]) -> float:
    """Return the rate with the fewest decimals that leaves as much as `start`, in floating point.

    0.29 * 100 is less than 29 there, which is why each is tried.
    """
    for places in range(1, 18):
        lowest = -(-start.numerator * 10**places // start.denominator)
        for tenths in (lowest, lowest + 1):
            rate = tenths / 10**places
            if rate <= max_rate and stays(rate) == stays(start):
                return rate
    raise AssertionError(f"no decimal stands for {start}")


def rates_at(units: Sequence[RateUnit], levels: Levels, num_rates: int) -> tuple[float, ...]:
    """Return the network's compress rates when each unit stands on its level's rung."""
    rates = [0.0] * num_rates
    for unit, level in zip(units, levels, strict=True):
        for position in unit.positions:
            rates[position] = unit.rungs[level].rate
    return tuple(rates)
