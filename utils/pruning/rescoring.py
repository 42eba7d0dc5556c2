"""Scores of a network that has lost filters already: of those that are left, as they are now."""

from collections.abc import Mapping

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.relations import Filters
from utils.pruning.criteria import WEIGHT_CRITERIA
from utils.pruning.scores import filter_weights, score_filters


def rescore_filters(
    model: nn.Module, graph: ChannelGraph, criterion: str, masks: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Score the filters of a masked network on its weights of now: {layer: [filters]}.

    What is left scores as in the removed network: weights that read a channel that is gone do not
    count, and filters are compared (fpgm) with those that are left.

    Args:
        criterion: one of those that `score_filters` computes.
        masks: {layer: bool [filters]}, False is gone; layers left out are whole.
    """
    scores = score_filters(model, graph, criterion)
    if criterion not in WEIGHT_CRITERIA:
        return scores
    read = _read(graph, masks)
    for layer, weight in filter_weights(model, graph).items():
        left = masks.get(layer, torch.ones(len(weight), dtype=torch.bool))
        live = read[layer].to(weight).reshape(*weight.shape[:2], *[1] * (weight.dim() - 2))
        scores[layer][left] = WEIGHT_CRITERIA[criterion]((weight * live)[left])
    return scores


def below_the_rest(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the scores, with those of the masked filters lower than any other of their layer."""
    lowered = {layer: score.clone() for layer, score in scores.items()}
    for layer, score in lowered.items():
        if layer in masks:
            score[~masks[layer]] = score.min() - 1
    return lowered


def _read(graph: ChannelGraph, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return {layer: bool [F, C_in / groups]}: which of its weights read a channel that is left."""
    alive, read = graph.alive(masks), {}
    for relation in graph.relations:
        if isinstance(relation, Filters):
            blocks = alive[relation.inputs].reshape(relation.groups, -1)  # [groups, C / groups]
            rows = blocks.repeat_interleave(len(relation.outputs) // relation.groups, 0)
            read[relation.module] = (
                read[relation.module] | rows if relation.module in read else rows
            )
    return read
