"""Branches: layers that compute nothing for the network once the last of them is masked whole."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.groups import channel_groups
from utils.graph.relations import Combined, Filters, Output, Whole


@dataclass(frozen=True)
class Branch:
    """Convs and linears, in the order they run, that only a sum reads, into which `last` writes.

    The sum stays without it: in a residual block, the shortcut. Branches of the same `stream`, the
    groups of channels by number that `last` writes, add to the same sums.
    """

    last: str
    layers: tuple[str, ...]
    stream: tuple[int, ...]


def branches(graph: ChannelGraph) -> tuple[Branch, ...]:
    """Return the branches that may be dropped, any number of them, in the order they run.

    No layer outside of those dropped loses a channel that it reads or writes, and nor does what the
    network returns. Branches share no layers: of a branch within a branch the inner one counts, of
    others, and of two that cannot both go, the one of more layers.
    """
    search, streams = _Search(graph), _streams(graph)
    every = [found for last in streams if (found := search.branch(last, streams[last]))]
    found = {frozenset(x.layers): x for x in every}  # of the same layers, the one that ends last
    inner = [x for layers, x in found.items() if not any(other < layers for other in found)]
    chosen: list[Branch] = []
    taken: set[str] = set()
    for branch in sorted(inner, key=lambda x: -len(x.layers)):
        if taken.isdisjoint(branch.layers):
            chosen.append(branch)
            taken.update(branch.layers)
    if not search.may_go(chosen):
        chosen = search.together(chosen)
    return tuple(branch for branch in every if branch in chosen)


def _streams(graph: ChannelGraph) -> dict[str, tuple[int, ...]]:
    """Return {layer: the groups that it writes} of layers that may write into a sum, in order.

    They can be left without channels.
    """
    groups = channel_groups(graph, across_sums=True)
    found = {
        layer: tuple(n for n, group in enumerate(groups) if layer in group.layers)
        for layer in graph.filters()
        if layer in graph.alignable and graph.alignable[layer].may_be_emptied
    }
    return {x: of for x, of in found.items() if any(len(groups[n].layers) > 1 for n in of)}


class _Search:
    """What a graph's channels are without some branches, beside what they are with all."""

    def __init__(self, graph: ChannelGraph):
        self.graph = graph
        self.layers = [x for x in graph.relations if isinstance(x, Filters)]
        self.alive, self.used = self._without(())

    def branch(self, last: str, stream: tuple[int, ...]) -> Branch | None:
        """Return the branch that ends in a layer, None if it does not end in a sum."""
        alive, used = self._without([last])
        busy = {layer.module for layer in self.layers if used[layer.outputs].any()}
        idle = [x.module for x in self.layers if self.used[x.outputs].any()]
        branch = Branch(last, tuple(dict.fromkeys(x for x in idle if x not in busy)), stream)
        ends = self._are_zero(self.alive & ~alive)
        return branch if ends and self._are_whole(self.used & ~used, branch.layers) else None

    def may_go(self, dropped: Iterable[Branch]) -> bool:
        """Return whether branches may be dropped together."""
        _, used = self._without([branch.last for branch in dropped])
        gone = {layer for branch in dropped for layer in branch.layers}
        return self._are_whole(self.used & ~used, gone)

    def together(self, branches: Iterable[Branch]) -> list[Branch]:
        """Return the first of the branches that may be dropped with all that are returned."""
        chosen: list[Branch] = []
        for branch in branches:
            if self.may_go([*chosen, branch]):
                chosen.append(branch)
        return chosen

    def _without(self, dropped: Iterable[str]) -> tuple[Tensor, Tensor]:
        """Return which channels are alive, and which matter, when layers are masked whole."""
        sizes = self.graph.filters()
        masks = {name: torch.zeros(sizes[name], dtype=torch.bool) for name in dropped}
        alive = self.graph.alive(masks)
        return alive, alive & self.graph.needed(alive)

    def _are_zero(self, faded: Tensor) -> bool:
        """True if nothing makes other numbers of the channels that are zero now (a sigmoid)."""
        return not any(
            faded[relation.inputs].any()
            for relation in self.graph.relations
            if isinstance(relation, Whole)
            or (isinstance(relation, Combined) and relation.mode == "never")
        )

    def _are_whole(self, lost: Tensor, gone: Collection[str]) -> bool:
        """True if no layer but those `gone` has a channel that is lost, nor does the output."""
        return not any(
            lost[relation.inputs].any() or lost[relation.outputs].any()
            for relation in self.graph.relations
            if isinstance(relation, Output)
            or (isinstance(relation, Filters) and relation.module not in gone)
        )
