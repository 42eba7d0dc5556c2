"""Scores of a model's filters by any criterion that needs only its weights."""

from collections.abc import Iterable

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.relations import Filters, Norm, Relation
from utils.pruning.criteria import input_energy, weight_scores


def score_filters(
    model: nn.Module, graph: ChannelGraph, criterion: str, *, seed: int = 0
) -> dict[str, Tensor]:
    """Score the filters of every conv and linear that may be pruned: {layer: [filters]}.

    `criterion` is a key of WEIGHT_CRITERIA, "random" (drawn by `seed`), "input_norm" or "bn_scale":
    the size of the scale of the batch norm behind a filter (Liu et al., 2017). With "bn_scale"
    layers without such a norm are left out.

    Raises:
        ValueError: if the criterion is unknown, or no layer has a norm for "bn_scale".
    """
    if criterion == "bn_scale":
        return _norm_scales(model, graph)
    if criterion == "input_norm":
        return _input_norms(model, graph)
    return weight_scores(criterion, filter_weights(model, graph), seed)


def filter_weights(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """Return {layer: weight [filters, ...]} of the layers that do not reach the output."""
    protected = graph.protected()
    return {
        layer: graph.weight(model, layer) for layer in graph.filters() if layer not in protected
    }


def _norm_scales(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    layers = {
        tuple(r.outputs.tolist()): r.module for r in graph.relations if isinstance(r, Filters)
    }
    modules = dict(model.named_modules())
    scales = {}
    for relation in graph.relations:
        layer = layers.get(tuple(relation.inputs.tolist())) if isinstance(relation, Norm) else None
        norm = modules.get(relation.module) if layer else None
        if getattr(norm, "weight", None) is not None:
            scales[layer] = norm.weight.detach().abs()
    if not scales:
        raise ValueError("criterion bn_scale: no conv has a norm with a scale behind it")
    return scales


def _input_norms(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """Return the norm of all weights with which later layers read each filter's channel.

    They are those of the convs and linears that the channel reaches through norms, activations,
    pooling, sums, products, cats and flattening, each counted once. A depthwise conv mixes no
    channels: it is passed, as a norm is, to the layer behind it.
    """
    energy = torch.zeros(graph.num_labels, dtype=torch.float64)  # of the weights that read a label
    reached: dict[int, set[int]] = {}  # label -> itself and all labels that are made of it
    made_by: dict[str, list[int]] = {}  # layer -> labels of its filters, of each of its calls
    for relation in reversed(graph.runs[0].relations):
        if isinstance(relation, Filters):
            made_by.setdefault(relation.module, []).append(relation.outputs.tolist())
        if isinstance(relation, Filters) and not relation.depthwise:
            weight = graph.weight(model, relation.module)
            energy.index_add_(0, relation.inputs, input_energy(weight, relation.groups).cpu())
            continue
        for made, sources in zip(relation.outputs.tolist(), _sources(relation), strict=True):
            for source in sources:
                reached.setdefault(source, {source}).update(reached.get(made, {made}))

    def norm(labels: Iterable[int]) -> float:
        read = set().union(*(reached.get(label, {label}) for label in labels))
        return float(energy[list(read)].sum().sqrt())

    return {
        layer: torch.tensor([norm(labels) for labels in zip(*made_by[layer], strict=True)])
        for layer in filter_weights(model, graph)
    }


def _sources(relation: Relation) -> list[list[int]]:
    """Return, for each output of an operation that mixes no channels, what it is made of."""
    inputs, count = getattr(relation, "inputs", None), len(relation.outputs)
    if inputs is None or count == 0:  # the network's own input or output
        return [[]] * count
    if isinstance(relation, Filters):  # depthwise: several outputs may be made of one channel
        inputs = inputs.repeat_interleave(count // len(inputs))
    return inputs.reshape(count, -1).tolist()
