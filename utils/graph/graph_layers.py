"""The prunable layers of any network, from its channel graph."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.activation_sites import ActivationSite, SiteValues, activation_sites
from utils.graph.call_sites import CallSite
from utils.graph.channel_graph import ChannelGraph
from utils.graph.forward_pass import left_alone
from utils.graph.groups import ChannelGroup, channel_groups
from utils.graph.inputs import called
from utils.graph.prunable import RankLayer, RankLayers, Site
from utils.runs.borrowed_state import evaluating


def graph_layers(model: nn.Module, graph: ChannelGraph, image: Any) -> RankLayers:
    """Return the convs and linears that may get narrower, in the order they run.

    Layers that live and die together have one rate. One of them is scored, the first whose own
    activation is a map of more than a pixel, and the others follow it.
    """
    sites = activation_sites(graph)
    shapes = _shapes(model, sites.values(), image)
    filters = graph.filters()
    why = {layer: _no_rank(shapes.get(layer), filters[layer]) for layer in filters}
    groups = [g for g in channel_groups(graph, across_sums=False) if not g.protected]
    leader_of, rate_of = _leaders(groups, why), _rates(groups)
    layers: list[RankLayer] = []
    for layer in (layer for layer in filters if layer in rate_of):
        leader, rate, file = leader_of[layer], rate_of[layer], f"rank_conv{len(layers) + 1}.npy"
        if leader != layer:
            layers.append(RankLayer(layer, file, None, rate, rate, follows=leader))
            continue
        site = None if why[layer] else _site(sites[layer])
        layers.append(RankLayer(layer, file, site, rate, rate, no_rank=why[layer]))
    return RankLayers(tuple(layers), len(set(rate_of.values())), by_group=True)


def _leaders(groups: Iterable[ChannelGroup], why: Mapping[str, str]) -> dict[str, str]:
    """Return {layer: the layer whose scores decide}, itself if those are its own."""
    leader_of: dict[str, str] = {}
    for group in groups:
        scored = [layer for layer in group.layers if leader_of.get(layer) == layer]
        fresh = [layer for layer in group.layers if layer not in leader_of] or list(group.layers)
        leader = scored[0] if scored else next((x for x in fresh if not why[x]), fresh[0])
        leader_of[leader] = leader
        for layer in group.layers:
            leader_of.setdefault(layer, leader)
    return leader_of


def _rates(groups: Iterable[ChannelGroup]) -> dict[str, int]:
    """Return {layer: position of its rate}, in the order of the groups."""
    rate_of: dict[str, int] = {}
    for group in groups:
        known = [rate_of[layer] for layer in group.layers if layer in rate_of]
        rate = min(known, default=len(set(rate_of.values())))
        for layer in group.layers:
            rate_of.setdefault(layer, rate)
    return rate_of


def _no_rank(shape: torch.Size | None, filters: int) -> str:
    """Return why a layer's own activation [1, C, ...] has no rank, "" if it has."""
    if shape is None:
        return "it runs more than once"
    if len(shape) != 4 or shape[1] != filters:
        return "no maps"
    return "maps of one pixel" if shape[2] * shape[3] == 1 else ""


@torch.no_grad()
def _shapes(model: nn.Module, sites: Iterable[ActivationSite], image: Any) -> dict[str, torch.Size]:
    """Return {layer: shape of its own activation} of one image."""
    layer_of = {site.call: site.conv for site in sites}
    shapes: dict[str, torch.Size] = {}

    def tell(call: CallSite, value: Tensor) -> None:
        shapes[layer_of[call]] = value.shape

    with left_alone(model), evaluating(model), SiteValues(model, layer_of, tell):
        called(model, image)
    return shapes


def _site(site: ActivationSite) -> Site:
    return Site(site.module or f"{site.call.function} of {site.conv}", call=site.call)
