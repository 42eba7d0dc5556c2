"""Channel sorting: permute a network's filters by importance without changing what it computes.

Afterwards the most important filters of a layer come first, for tools that keep a prefix. `prune`
itself has no use for it: to sort by a criterion and keep the first is to keep the best by it.
"""

import copy
from collections.abc import Mapping

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.groups import ChannelGroup, channel_groups
from utils.graph.relations import CONSTANT, Combined, Constants, Filters, Norm, Whole
from utils.pruning.group_plan import channel_scores


@torch.no_grad()
def sort_channels(
    model: nn.Module, graph: ChannelGraph, scores: Mapping[str, Tensor]
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a copy of `model` with its channels in descending order of score, and which layers.

    Tied layers (across sums, too) get one order, by the mean of their scores. Groups that cannot
    be permuted whole stay as they are: those that reach the output, whose layers do not line up
    (a zero-padded shortcut), or that an operation treats by position (a chunk, grouped convs, a
    product with a parameter).

    Args:
        scores: {layer: [filters]}; groups without a score stay as they are.
    """
    ordered, layers = copy.deepcopy(model), []
    for group in channel_groups(graph, across_sums=True):
        moves = _moves(group, scores, graph.filters())
        sources = None if moves is None else _sources(graph, moves)
        if sources is not None:
            for module, (outputs, inputs) in sources.items():
                _permute(ordered.get_submodule(module), outputs, inputs)
            layers += group.layers
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


def _sources(
    graph: ChannelGraph, moves: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]] | None:
    """Follow the new order through the network.

    Returns {module with parameters: (old position of each output, of each input)}, or None where
    an operation would then mix channels in another way. `now[label]` is the label that stands
    where `label` stood.
    """
    now = torch.arange(graph.num_labels)
    unlike = now == CONSTANT  # one label of channels that differ: a parameter's, a softmax's
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for relation in graph.relations:
        inputs = getattr(relation, "inputs", relation.outputs)
        unmoved = torch.equal(now[inputs], inputs)
        if isinstance(relation, Filters | Norm):
            places = _places(inputs, now[inputs])
            if places is None:
                return None
            outputs = _outputs(relation, moves, places)
            if outputs is None:
                return None
            now[relation.outputs] = relation.outputs[outputs]
            before = found.setdefault(relation.module, (outputs, places))
            if not all(map(torch.equal, before, (outputs, places))):
                return None  # a module called twice, on channels in different orders
        elif isinstance(relation, Combined | Constants):
            rows = _places(_rows(inputs), _rows(now[inputs]))
            unlike[relation.outputs] = unlike[_rows(inputs)].any(1)
            if rows is None or not unmoved and unlike[relation.outputs].any():
                return None
            now[relation.outputs] = relation.outputs[rows]
        elif not unmoved:
            return None
        elif isinstance(relation, Whole):
            unlike[relation.outputs] = True
    return found


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


def _permute(module: nn.Module, outputs: Tensor, inputs: Tensor) -> None:
    for name, tensor in [
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
    ]:
        if name == "weight" and tensor.dim() > 1:
            transposed = getattr(module, "transposed", False)
            weight = tensor.transpose(0, 1) if transposed else tensor
            weight = weight[outputs]
            if getattr(module, "groups", 1) == 1:
                weight = weight[:, inputs]
            tensor.copy_(weight.transpose(0, 1) if transposed else weight)
        elif tensor.dim() == 1:
            tensor.copy_(tensor[outputs])
