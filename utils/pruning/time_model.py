"""The time of a network at any levels of its units, by a latency table and one measurement.

Behind the levels of the units those of branches may stand: 1 is dropped.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import torch

from utils.graph.branches import Branch
from utils.graph.channel_graph import ChannelGraph
from utils.graph.groups import ChannelGroup
from utils.metrics.latency_table import FOURS, LatencyTable
from utils.metrics.layer_shapes import LayerShape
from utils.pruning.rate_units import Levels, RateUnit
from utils.removal.record import Removal
from utils.removal.surgery import places

Widths = dict[str, tuple[int, int]]  # {layer: channels read and written}
_Cost = Callable[[str, int, int], float]  # of a layer that reads and writes so many


class TimeModel:
    """The share of the dense network's time that is left at any levels of the units.

    Layers take what the table says of the channels that they then read and write. What the whole
    takes beyond its layers (sums, pooling, layouts) is taken to go with the numbers that layers
    write.

    Args:
        whole_ms: time of the dense network.
        how: how channels are removed, which says where the network's own code cannot follow.
        branches: those that may be dropped, of which nothing is left then.
    """

    def __init__(
        self,
        units: Sequence[RateUnit],
        graph: ChannelGraph,
        shapes: Mapping[str, LayerShape],
        table: LatencyTable,
        whole_ms: float,
        how: Removal,
        branches: Sequence[Branch] = (),
    ):
        self.units, self.branches, self.table = units, branches, table
        whole = _widths(graph, {}, how)
        self._shapes = {name: shape for name, shape in shapes.items() if name in whole}
        self._taken = [
            [_taken_by_channel(graph, group, whole, how) for group in unit.groups] for unit in units
        ]
        self._touched = [
            sorted({name for of_group in taken for name in of_group if name in self._shapes})
            for taken in self._taken
        ]
        self._touched += [[x for x in b.layers if x in self._shapes] for b in branches]
        self._of_layer: dict[str, list[int]] = {name: [] for name in self._shapes}
        for number, names in enumerate(self._touched):
            for name in names if number < len(units) else ():
                self._of_layer[name].append(number)
        layers_ms = table.sum_ms(shapes.values())
        self.whole_ms = max(whole_ms, layers_ms)
        self._rest_ms = max(0.0, whole_ms - layers_ms)
        self._fixed_ms = layers_ms - table.sum_ms(self._shapes.values())
        self._written = sum(shape.written for shape in self._shapes.values())
        self._whole_macs = sum(shape.macs for shape in shapes.values())
        self._layer_ms, self._layer_macs = cache(self._timed), cache(self._counted)
        self._dropped = cache(self._layers_dropped)

    def share(self, levels: Levels) -> float:
        """Return the share of the dense network's time that is left."""
        layers_ms = self._sum(self._layer_ms, self._shapes, levels)
        return (self._fixed_ms + layers_ms) / self.whole_ms

    def saved(self, levels: Levels, number: int, level: int) -> float:
        """Return the share of time that is saved when one goes from its level to another."""
        return self._saved(self._layer_ms, levels, number, level) / self.whole_ms

    def macs_saved(self, levels: Levels, number: int, level: int) -> float:
        """Return the share of MACs that is saved when one goes from its level to another."""
        return self._saved(self._layer_macs, levels, number, level) / self._whole_macs

    def widths(self, levels: Levels) -> Widths:
        """Return how many channels each layer that is left reads and writes at the levels."""
        gone = self.dropped(levels)
        return {name: self._at(name, levels) for name in self._shapes if name not in gone}

    def dropped(self, levels: Levels) -> frozenset[str]:
        """Return the layers of the branches that are dropped."""
        return self._dropped(tuple(levels[len(self.units) :]))

    def _layers_dropped(self, flags: Levels) -> frozenset[str]:
        pairs = zip(self.branches, flags, strict=False)
        return frozenset(layer for branch, gone in pairs if gone for layer in branch.layers)

    def stops(self, number: int) -> list[int]:
        """Return the levels of a unit or branch that may be worth their time, without 0.

        They are those where one of its layers writes full blocks, or in fours if it is of less than
        two blocks; and the last.
        """
        if number >= len(self.units):
            return [1]
        written = [name for name in self._touched[number] if self._writes(number, name)]
        dense = [self._shapes[name].writes for name in written]
        steps = [self.table.block if w >= 2 * self.table.block else FOURS for w in dense]
        last = len(self.units[number].rungs) - 1
        found = []
        for level in range(1, last + 1):
            left = [
                w - self._lost(number, n, level)[1] for n, w in zip(written, dense, strict=True)
            ]
            if level == last or any(w % step == 0 for w, step in zip(left, steps, strict=True)):
                found.append(level)
        return found

    def readers(self, number: int, group: int) -> int:
        """Return how many layers read the channels of a unit's group."""
        taken = self._taken[number][group]
        return sum(taken[name][0] > 0 for name in taken if name in self._shapes)

    def _writes(self, number: int, name: str) -> bool:
        return any(taken.get(name, (0, 0))[1] for taken in self._taken[number])

    @cache  # noqa: B019 (a model lives as long as one search)
    def _lost(self, number: int, name: str, level: int) -> tuple[int, int]:
        """Return how many channels fewer a layer reads and writes by a unit's level."""
        unit = self.units[number]
        reads = writes = 0
        for group, taken, stays in zip(
            unit.groups, self._taken[number], unit.rungs[level].stays, strict=True
        ):
            by_channel = taken.get(name, (0, 0))
            reads += by_channel[0] * (len(group.channels) - stays)
            writes += by_channel[1] * (len(group.channels) - stays)
        return reads, writes

    def _at(self, name: str, levels: Levels) -> tuple[int, int]:
        shape = self._shapes[name]
        reads, writes = shape.reads, shape.writes
        for number in self._of_layer[name]:
            fewer = self._lost(number, name, levels[number])
            reads, writes = reads - fewer[0], writes - fewer[1]
        return reads, writes

    def _saved(self, cost: _Cost, levels: Levels, number: int, level: int) -> float:
        moved = [*levels[:number], level, *levels[number + 1 :]]
        before, after = (self._sum(cost, self._touched[number], at) for at in (levels, moved))
        return before - after

    def _sum(self, cost: _Cost, names: Iterable[str], levels: Levels) -> float:
        gone = self.dropped(levels)
        return sum(cost(x, *self._at(x, levels)) for x in names if x not in gone)

    def _counted(self, name: str, reads: int, writes: int) -> float:
        return self._shapes[name].at(reads, writes).macs

    def _timed(self, name: str, reads: int, writes: int) -> float:
        shape = self._shapes[name]
        rest = self._rest_ms * shape.at(reads, writes).written / self._written
        return rest + shape.calls * self.table.layer_ms(shape, reads, writes)


def _widths(graph: ChannelGraph, masks: Mapping[str, torch.Tensor], how: Removal) -> Widths:
    kept = graph.kept_positions(places(graph, masks, how)[0])
    return {name: (len(inputs), len(outputs)) for name, (outputs, inputs) in kept.items()}


def _taken_by_channel(
    graph: ChannelGraph, group: ChannelGroup, whole: Widths, how: Removal
) -> Widths:
    """Return how many channels each layer reads and writes less when one of the group is gone."""
    sizes = graph.filters()
    masks = {layer: torch.ones(sizes[layer], dtype=torch.bool) for layer in group.layers}
    for layer, index in group.channels[0]:
        masks[layer][index] = False
    left = _widths(graph, masks, how)
    fewer = {n: (r - left[n][0], w - left[n][1]) for n, (r, w) in whole.items()}
    return {name: both for name, both in fewer.items() if any(both)}
