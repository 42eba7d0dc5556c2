"""Groups: the filters whose channels live or die together, found by uniting labels."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from utils.graph.channel_graph import ChannelGraph
from utils.graph.relations import Combined, Filters, Norm, Whole


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that run through the same layers, tied filter by filter.

    `channels[i]` are the filters, (layer, index), that channel i of the group is made of. A group
    that reaches the network's output is protected: nothing of it may go.
    """

    layers: tuple[str, ...]
    channels: tuple[tuple[tuple[str, int], ...], ...]
    protected: bool
    read_whole_by: tuple[str, ...]  # what fills removed channels with zeros again
    stopped: bool = False  # protected by an operation that is not followed

    def rounded_up(self, count: int, round_to: int) -> int:
        """Return `count` channels or the next more that are `round_to` filters or its multiples.

        A head, or a block of a grouped conv, is several filters of a layer.
        """
        each = Counter(layer for layer, _ in self.channels[0]).values()
        step = math.lcm(*(round_to // math.gcd(round_to, filters) for filters in each))
        return min(len(self.channels), -(-count // step) * step)

    def describe(self) -> str:
        """Return one line: the layers, how many channels, and what keeps them from shrinking."""
        remarks = []
        if self.protected:
            why = "is read by what is not followed" if self.stopped else "reaches the output"
            remarks.append(f"protected: {why}")
        if self.read_whole_by:
            remarks.append(f"read whole by {', '.join(self.read_whole_by)}")
        names = " + ".join(self.layers)
        return f"{names}: {len(self.channels)} channels" + "".join(f"; {x}" for x in remarks)


def channel_groups(graph: ChannelGraph, *, across_sums: bool) -> tuple[ChannelGroup, ...]:
    """Return the groups of a network in the order their first layers run.

    Always tied: a depthwise or grouped conv and what it reads, the factors of a product, the
    channels of a group norm. `across_sums` ties the operands of sums, too: then whole residual
    streams get narrower. Without it, convs that feed a sum are pruned one by one, and so are those
    that feed it beside a protected layer, or of which it would leave all or none.
    """
    protected, returned = graph.protected(), graph.protected(barriers=False)
    union = _united(graph, protected, across_sums=across_sums)
    channels = _channels_by_root(graph, union)
    readers = _whole_readers(graph, union)
    groups = []
    for roots in _alike(channels):
        layers = tuple(dict.fromkeys(layer for root in roots for layer, _ in channels[root]))
        groups.append(
            ChannelGroup(
                tuple(layer for layer in graph.filters() if layer in layers),
                tuple(tuple(channels[root]) for root in roots),
                bool(protected.intersection(layers)),
                tuple(dict.fromkeys(name for root in roots for name in readers.get(root, ()))),
                stopped=bool(protected.intersection(layers)) and not returned.intersection(layers),
            )
        )
    return tuple(groups)


def describe(groups: Iterable[ChannelGroup]) -> str:
    """Return the groups, a line each, and what share of the filters can go if some are stopped."""
    groups = tuple(groups)
    lines = [group.describe() for group in groups]
    if any(group.stopped for group in groups):
        counts = {group: sum(map(len, group.channels)) for group in groups}
        free = sum(count for group, count in counts.items() if not group.protected)
        every = sum(counts.values())
        lines.append(
            f"{free} of {every} filters ({free / every:.0%}) are in groups that can shrink"
        )
    return "\n".join(lines)


class _Union:
    """Sets of labels, united pair by pair (union-find with path halving)."""

    def __init__(self, count: int):
        self._parent = list(range(count))

    def root(self, label: int) -> int:
        parent = self._parent
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    def unite(self, left: Sequence[int], right: Sequence[int]) -> None:
        for a, b in zip(left, right, strict=True):
            a, b = self.root(a), self.root(b)
            self._parent[max(a, b)] = min(a, b)

    def count(self, labels: Sequence[int]) -> int:
        return len({self.root(label) for label in labels})

    def copied(self) -> "_Union":
        twin = _Union(0)
        twin._parent = self._parent.copy()
        return twin


def _united(graph: ChannelGraph, protected: set[str], *, across_sums: bool) -> _Union:
    """Return the labels of which either all or none may go.

    What a layer gives is tied where it is added to itself (a rotary embedding). Layers of which
    sums would make a single channel are not tied by sums.
    """
    union, loose, sums = _Union(graph.num_labels), graph.loose(), []
    for relation in graph.relations:
        left, right = (labels.tolist() for labels in relation.coupled(loose))
        if isinstance(relation, Combined) and _adds_activations(relation):
            sums.append((relation, [*zip(left, right, strict=True)]))
        else:
            union.unite(left, right)
    filters = _first_calls(graph)
    for layer in _layers(graph):  # called twice, it is one layer
        union.unite(filters[layer.module], layer.outputs.tolist())
    layer_of = {union.root(x): layer for layer, labels in filters.items() for x in labels}
    pairs: list[tuple[int, int]] = []
    for relation, labels in sums:
        added = {layer_of.get(union.root(x)) for x in relation.inputs.unique().tolist()}
        if across_sums or len(added) == 1 and None not in added:
            pairs += labels
    if not pairs:
        return union
    tied = _tied_by(pairs, union, filters, protected)
    single = {x for x, labels in filters.items() if tied.count(labels) == 1 < union.count(labels)}
    return _tied_by(pairs, union, filters, protected, single) if single else tied


def _adds_activations(relation: Combined) -> bool:
    """True for a sum of more than one operand that is no parameter."""
    return relation.mode == "any" and relation.parameters.count(False) > 1


def _tied_by(
    sums: Iterable[tuple[int, int]],
    union: _Union,
    filters: Mapping[str, list[int]],
    protected: set[str],
    single: Iterable[str] = (),
) -> _Union:
    """Return a union with the labels that sums tie, but for those of the `single` layers.

    A sum does not tie what stays to what may go: it stays with the first, as with a constant.
    """
    tied = union.copied()
    apart = {union.root(label) for name in single for label in filters[name]}
    stays = {union.root(label): False for labels in filters.values() for label in labels}
    for name in protected.intersection(filters):
        stays |= {union.root(label): True for label in filters[name]}
    for one, other in sums:
        a, b = tied.root(one), tied.root(other)
        if apart.isdisjoint((a, b)) and {stays.get(a), stays.get(b)} != {True, False}:
            tied.unite([a], [b])
            stays |= {tied.root(a): stays[x] for x in (a, b) if x in stays}
    return tied


def _layers(graph: ChannelGraph) -> list[Filters]:
    return [r for r in graph.relations if isinstance(r, Filters) and r.maskable]


def _first_calls(graph: ChannelGraph) -> dict[str, list[int]]:
    """Return {layer: labels of its filters, at its first call}."""
    found: dict[str, list[int]] = {}
    for layer in _layers(graph):
        found.setdefault(layer.module, layer.outputs.tolist())
    return found


def _channels_by_root(graph: ChannelGraph, union: _Union) -> dict[int, list[tuple[str, int]]]:
    """Return {root: the filters of that channel}."""
    channels: dict[int, list[tuple[str, int]]] = {}
    for layer, labels in _first_calls(graph).items():
        for index, label in enumerate(labels):
            channels.setdefault(union.root(label), []).append((layer, index))
    return channels


def _alike(channels: dict[int, list[tuple[str, int]]]) -> list[Sequence[int]]:
    """Return the roots whose channels run through the same layers, together.

    A zero-padded stream is three groups then: the channels that run through all three stages, those
    of the last two, and those of the last.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for root, members in channels.items():
        groups.setdefault(tuple(sorted(layer for layer, _ in members)), []).append(root)
    return list(groups.values())


def _whole_readers(graph: ChannelGraph, union: _Union) -> dict[int, list[str]]:
    """Return {root: operations that must see the channel even when it is zero}."""
    readers, loose = {}, graph.loose()
    for relation in graph.relations:
        layer_norm = isinstance(relation, Norm) and relation.groups == 1 < len(relation.inputs)
        layer_norm = layer_norm and not loose.get(relation.module, False)
        if isinstance(relation, Whole) or layer_norm:
            for label in relation.inputs.flatten().tolist():
                readers.setdefault(union.root(label), []).append(relation.node)
    return readers
