"""Channel sorting: permute a network's filters by importance without changing what it computes.

Afterwards the most important filters of a layer come first, for tools that keep a prefix. `prune`
itself has no use for it: to sort by a criterion and keep the first is to keep the best by it.
"""

from collections.abc import Mapping

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.groups import ChannelGroup, channel_groups
from utils.graph.relations import (
    CONSTANT,
    FIRST_CHANNEL,
    Combined,
    Filters,
    Norm,
    Relation,
    Unmasked,
    Whole,
)
from utils.pruning.group_plan import channel_scores
from utils.removal.copies import copied
from utils.removal.law import first_difference


@torch.no_grad()
def sort_channels(
    model: nn.Module, graph: ChannelGraph, scores: Mapping[str, Tensor], *, check: bool = True
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a copy of `model` with its channels in descending order of score, and which layers.

    Tied layers (across sums, too) get one order, by the mean of their scores. Groups that cannot
    be permuted whole stay as they are: those that reach the output, whose layers do not line up
    (a zero-padded shortcut), or that an operation treats by position (a chunk, grouped convs, a
    product with a constant).

    Args:
        scores: {layer: [filters]}; groups without a score stay as they are.
        check: hold the copy against the model, in float64, in eval and in train mode.

    Raises:
        ValueError: if the network cannot be copied, or the copy computes something else.
    """
    ordered, layers = copied(model), []
    tensors = {**dict(ordered.named_parameters()), **dict(ordered.named_buffers())}
    for group in channel_groups(graph, across_sums=True):
        moves = _moves(group, scores, graph.filters())
        orders = None if moves is None else _orders(graph, moves)
        if orders is not None:
            for (name, dim), places in orders.items():
                moved = tensors[name].index_select(dim, places.to(tensors[name].device))
                tensors[name].copy_(moved)
            layers += group.layers
    difference = first_difference(model, ordered, graph) if check else None
    if difference is not None:
        raise ValueError(f"the sorted network differs from the given one {difference}")
    return ordered, tuple(layers)


def _moves(
    group: ChannelGroup, scores: Mapping[str, Tensor], filters: Mapping[str, int]
) -> dict[str, Tensor] | None:
    """Return {layer: old position of each new filter}, None if the group cannot be permuted."""
    scored = any(layer in scores for layer in group.layers)
    lined_up = all(
        [name for name, _ in members] == [name for name, _ in group.channels[0]]
        and len(members) == len(group.layers)
        and len({index for _, index in members}) == 1
        for members in group.channels
    )
    if group.protected or not scored or not lined_up:
        return None
    order = channel_scores(group, scores).sort(descending=True, stable=True).indices
    old = torch.tensor([members[0][1] for members in group.channels])
    moves = {layer: torch.arange(filters[layer]) for layer in group.layers}
    for moved in moves.values():
        moved[old.sort().values] = old[order]
    return moves


def _orders(
    graph: ChannelGraph, moves: Mapping[str, Tensor]
) -> dict[tuple[str, int], Tensor] | None:
    """Follow the new order through the network.

    Returns {(parameter, dimension): old position of each new one} of what moves, or None where an
    operation would then mix channels in another way.
    """
    walk = _Walk(graph.num_labels)
    for relation in graph.relations:
        if not walk.follows(relation, moves):
            return None
    orders = {}
    for name, vectors in graph.parameters.items():
        for dim, vector in enumerate(vectors):
            places = _places(vector, walk.now[vector])
            if places is None:
                return None
            if not torch.equal(places, torch.arange(len(places))):
                orders[name, dim] = places
    return orders


class _Walk:
    """Goes through the relations: `now[label]` is the label that stands where `label` stood."""

    def __init__(self, num_labels: int):
        self.now = torch.arange(num_labels)
        self._set = torch.zeros(num_labels, dtype=torch.bool)
        self._unlike = self.now < FIRST_CHANNEL  # one label of places that differ

    def follows(self, relation: Relation, moves: Mapping[str, Tensor]) -> bool:
        """Move the labels that the relation gives out; False if it cannot be permuted."""
        inputs = getattr(relation, "inputs", relation.outputs)
        unmoved = torch.equal(self.now[inputs], inputs)
        if isinstance(relation, Filters | Norm):
            places = _places(inputs, self.now[inputs])
            outputs = None if places is None else _outputs(relation, moves, places)
            if outputs is None:
                return False
            columns = getattr(relation, "columns", inputs[:0])
            moved = [(row, outputs) for row in (*relation.rows, relation.outputs)]
            moved += [(columns, places)] if len(columns) else []
            return all(self._move(labels, order) for labels, order in moved)
        if isinstance(relation, Combined):
            return self._combined(relation)
        if isinstance(relation, Unmasked):
            return True
        if isinstance(relation, Whole):
            self._unlike[relation.outputs] = True
        return unmoved

    def _combined(self, relation: Combined) -> bool:
        inputs, parameters = relation.inputs, relation.parameters
        live = [k for k, flag in enumerate(parameters) if not flag]
        ours = [k for k in live if relation.spans[k] or not (inputs[:, k] == CONSTANT).all()]
        rows = _places(inputs[:, ours], self.now[inputs[:, ours]])
        if rows is None:
            return False
        unlike = self._unlike[inputs[:, ours]].any(1)
        self._unlike[relation.outputs] = unlike
        if not torch.equal(rows, torch.arange(len(rows))) and unlike.any():
            return False
        moved = [inputs[:, k] for k, flag in enumerate(parameters) if flag and relation.spans[k]]
        return all(self._move(labels, rows) for labels in (*moved, relation.outputs))

    def _move(self, labels: Tensor, order: Tensor) -> bool:
        """Let labels stand in a new order; False if they stand in another one already."""
        real = labels >= FIRST_CHANNEL
        before, new = labels[real], labels[order][real]
        done = self._set[before]
        if not torch.equal(self.now[before][done], new[done]):
            return False
        self.now[before], self._set[before] = new, True
        return True


def _outputs(
    relation: Filters | Norm, moves: Mapping[str, Tensor], places: Tensor
) -> Tensor | None:
    """Return the old position of each output, None if the layer's groups would be torn apart."""
    same = torch.arange(len(relation.outputs))
    tied = relation.groups == len(relation.inputs) == len(relation.outputs) > 1
    if isinstance(relation, Norm):
        whole = tied or relation.groups == 1 or torch.equal(places, same)
        return places if whole else None
    moved = moves.get(relation.module, same)
    if relation.groups == 1:
        return moved
    return moved if tied and torch.equal(moved, places) or _is_identity(places, moved) else None


def _is_identity(*orders: Tensor) -> bool:
    return all(torch.equal(order, torch.arange(len(order))) for order in orders)


def _rows(labels: Tensor) -> Tensor:
    return labels if labels.dim() == 2 else labels[:, None]


def _places(old: Tensor, new: Tensor) -> Tensor | None:
    """Return where each row of `new` stands in `old`, None if they do not hold the same rows.

    Of equal rows (the positions of a flattened map) the first is the first, and so on.
    """
    old, new = _rows(old), _rows(new)
    _, ids = torch.cat([old, new]).unique(dim=0, return_inverse=True)
    from_old, from_new = (part.sort(stable=True) for part in ids.split(len(old)))
    if not torch.equal(from_old.values, from_new.values):
        return None
    places = torch.empty_like(from_old.indices)
    places[from_new.indices] = from_old.indices
    return places
