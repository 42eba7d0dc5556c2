"""Where the next layer reads a conv's feature maps: behind pooling, sums and cats."""

import torch
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.labels import axis_vector
from utils.graph.prunable import Site
from utils.graph.relations import Filters, Relation
from utils.graph.tracing import Operation, Run
from utils.graph.values import Value


def read_sites(graph: ChannelGraph) -> dict[str, Site]:
    """Return {conv: the maps that the first layer behind it reads, its own channels of them}.

    Of maps of one pixel, as behind the last pooling, those before count. A conv is left out whose
    channels do not come side by side.
    """
    run, sites = graph.runs[0], {}
    for at, operation in enumerate(run.operations):
        for relation in run.relations[slice(*operation.made)]:
            if isinstance(relation, Filters):
                site = _site_of(run, at, relation, graph.num_labels)
                if site is not None:
                    sites[relation.module] = site
    return sites


def _site_of(run: Run, at: int, layer: Filters, num_labels: int) -> Site | None:
    """Follow the filters of one layer, call number `at`, to where a layer reads maps of theirs."""
    owner = torch.full((num_labels,), -1)  # label -> the filter that its channel is made of
    owner[layer.outputs] = torch.arange(len(layer.outputs))
    found: dict[int, Site | None] = {}  # {id of a value: its site}
    last = None
    for operation in run.operations[at:]:
        for relation in run.relations[slice(*operation.made)]:
            if relation is layer:
                continue
            if isinstance(relation, Filters):
                if (owner[relation.inputs] >= 0).any() and _is_map(operation.reads[0]):
                    return found.get(id(operation.reads[0]), last)
            else:
                _hand_on(owner, relation)
        for value in operation.gives:
            if _is_map(value) and (owner[value.planes[0][0, :, 0, 0]] >= 0).any():
                found[id(value)] = last = _site(operation, value, owner, layer)
    return last


def _hand_on(owner: Tensor, relation: Relation) -> None:
    inputs = getattr(relation, "inputs", None)
    if inputs is None or not len(relation.outputs) or inputs.numel() % len(relation.outputs):
        return
    made_of = owner[inputs.reshape(len(relation.outputs), -1)].amax(1)
    owner[relation.outputs] = torch.maximum(owner[relation.outputs], made_of)


def _is_map(value: Value) -> bool:
    """True for maps [N, C, H, W] of more than a pixel whose channels lie along dimension 1."""
    if not value.live or len(value.planes) != 1 or value.planes[0].dim() != 4:
        return False
    plane = value.planes[0]
    along = axis_vector(plane)
    return plane.size(2) * plane.size(3) > 1 and along is not None and along[0] == 1


def _site(operation: Operation, value: Value, owner: Tensor, layer: Filters) -> Site | None:
    filters = owner[value.planes[0][0, :, 0, 0]]  # [C]
    places = (filters >= 0).nonzero().flatten()
    if not torch.equal(filters[places], torch.arange(len(layer.outputs))):
        return None
    start, stop = int(places[0]), int(places[-1]) + 1
    if stop - start != len(places):
        return None
    whole = (start, stop) == (0, len(filters))
    where = operation.path or operation.name
    return Site(where, start, None if whole else stop, call=operation.site)
