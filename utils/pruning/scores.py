"""Scores of a model's filters by any criterion that needs only its weights."""

import torch.nn as nn
from torch import Tensor

from models.channel_graph import ChannelGraph
from models.channel_relations import Filters, Norm
from utils.pruning.criteria import weight_scores


def score_filters(
    model: nn.Module, graph: ChannelGraph, criterion: str, *, seed: int = 0
) -> dict[str, Tensor]:
    """Score the filters of every conv and linear that may be pruned: {layer: [filters]}.

    `criterion` is a key of WEIGHT_CRITERIA, "random" (drawn by `seed`) or "bn_scale": the size of
    the scale of the batch norm behind a filter (Liu et al., 2017). With "bn_scale" layers without
    such a norm are left out.

    Raises:
        ValueError: if the criterion is unknown, or no layer has a norm for "bn_scale".
    """
    if criterion == "bn_scale":
        return _norm_scales(model, graph)
    return weight_scores(criterion, filter_weights(model, graph), seed)


def filter_weights(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """Return {layer: weight [filters, ...]} of the layers that do not reach the output."""
    protected = graph.protected()
    return {
        layer: filters_first(model.get_submodule(layer))
        for layer in graph.filters()
        if layer not in protected
    }


def filters_first(layer: nn.Module) -> Tensor:
    """Return a conv's or linear's weight as [filters, C_in / groups, ...], transposed convs too."""
    weight = layer.weight.detach()
    if not getattr(layer, "transposed", False):
        return weight
    by_group = weight.unflatten(0, (layer.groups, -1))  # [groups, C_in / groups, F / groups, ...]
    return by_group.transpose(1, 2).flatten(0, 1)


def _norm_scales(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    layers = {
        tuple(r.outputs.tolist()): r.module for r in graph.relations if isinstance(r, Filters)
    }
    scales = {}
    for relation in graph.relations:
        layer = layers.get(tuple(relation.inputs.tolist())) if isinstance(relation, Norm) else None
        norm = model.get_submodule(relation.module) if layer else None
        if norm is not None and norm.weight is not None:
            scales[layer] = norm.weight.detach().abs()
    if not scales:
        raise ValueError("criterion bn_scale: no conv has a norm with a scale behind it")
    return scales
