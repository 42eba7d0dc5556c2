"""Giving back: filters that a plan need not remove, since the network is no faster without them."""

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.groups import channel_groups
from utils.metrics.layer_shapes import FOURS
from utils.pruning.group_plan import channel_scores
from utils.pruning.plan import LayerPlan, PruningPlan
from utils.removal.record import Removal, last_removal
from utils.removal.surgery import places, remove_filters

GIVEN_BACK = "given back: no time"


def given_back(
    plan: PruningPlan,
    model: nn.Module,
    graph: ChannelGraph,
    scores: Mapping[str, Tensor],
    block: int,
) -> PruningPlan:
    """Return the plan with filters given back that take no time, those of the highest score first.

    Where nothing is copied, a channel that any layer writes into a sum, or that the network's own
    code needs, is there for all that write there, so all of them keep it. Then the channels of each
    group that stay are filled up to a multiple of `block`, of four where they are less than a
    block.

    Args:
        block: channels that the runtime computes at once.
    """
    kept = {layer.conv: layer.mask() for layer in plan.layers}
    slim = remove_filters(model, graph, plan.masks(), align="zeros", check=False)
    how = last_removal(slim) or Removal("zeros")
    stand = graph.kept_positions(places(graph, plan.masks(), how)[0])
    gone = {layer.conv for layer in plan.layers if not layer.kept}
    there = {(x, i) for x, (rows, _) in stand.items() if x not in gone for i in rows.tolist()}
    for group in channel_groups(graph, across_sums=True):
        stays = [bool(there.intersection(channel)) for channel in group.channels]
        step = block if sum(stays) > block else FOURS
        wanted = min(len(stays), -(-sum(stays) // step) * step)
        for channel in channel_scores(group, scores).argsort(descending=True, stable=True).tolist():
            stays[channel] |= sum(stays) < wanted
        for channel, stay in zip(group.channels, stays, strict=True):
            for layer, index in channel:
                if layer in kept and layer not in gone:
                    kept[layer][index] |= stay
    return PruningPlan(tuple(_with(layer, kept[layer.conv]) for layer in plan.layers))


def _with(layer: LayerPlan, kept: Tensor) -> LayerPlan:
    if torch.equal(kept, layer.mask()):
        return layer
    reason = "; ".join(filter(None, [layer.reason, GIVEN_BACK]))
    stays = tuple(kept.nonzero().flatten().tolist())
    return replace(layer, kept=stays, cut_score=None, tied_at_cut=False, reason=reason)
