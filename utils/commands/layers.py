"""`main.py layers`: a network as its channel graph sees it, before anything is ranked or pruned."""

from typing import Any

from utils.graph.channel_graph import ChannelGraph
from utils.graph.groups import ChannelGroup, channel_groups
from utils.graph.network import Network
from utils.graph.prunable import RankLayer
from utils.graph.relations import Whole
from utils.metrics.cost import counts, physical_cost
from utils.options.layers_options import LayersConfig
from utils.options.networks import open_network, open_prunable
from utils.rank.rank_layers import layers_at


def layers_command(config: LayersConfig) -> dict[str, Any]:
    """Return the layers of a network: what each may lose, with whom, and where it is ranked.

    It needs no images and, where `--arch` is given, no checkpoint.

    Raises:
        ValueError: bad input.
    """
    network = _network(config)
    cost, known = physical_cost(network.model, network.example), layers_at(network, config.sites)
    macs = {layer.name: layer.macs for layer in cost.layers}
    groups = channel_groups(network.graph, across_sums=config.group)
    prunable = {layer.conv: layer for layer in known.layers}
    rows = [
        {
            "layer": layer,
            "filters": filters,
            "macs": macs.get(layer, 0),
            "share_of_macs": macs.get(layer, 0) / max(cost.macs, 1),
            **_place(prunable.get(layer)),
            **_ties(layer, groups),
        }
        for layer, filters in network.graph.filters().items()
    ]
    return {
        "command": "layers",
        "arch": network.spec,
        "arch_args": network.arguments,
        "image": list(network.example.shape[1:]),
        "num_classes": network.num_classes,
        **counts(cost),
        "uncounted": list(cost.uncounted),
        "rates": known.num_rates,
        "layers": rows,
        "barriers": barriers(network.graph),
    }


def _network(config: LayersConfig) -> Network:
    if config.resume is not None or config.test_model_dir is not None:
        network = open_network(config, config.tested())
        return network if network.form == "dense" else open_prunable(config)
    return open_network(config, None)


def barriers(graph: ChannelGraph) -> list[str]:
    """Return the operations that nobody knows: what enters them stays whole."""
    found = [r.node for r in graph.relations if isinstance(r, Whole) and r.barrier]
    return list(dict.fromkeys(found))


def _place(layer: RankLayer | None) -> dict[str, Any]:
    if layer is None:
        return {"rate": None, "site": None, "no_rank": "", "follows": None}
    site = None if layer.site is None else str(layer.site)
    return {
        "rate": layer.rate + 1,
        "site": site,
        "no_rank": layer.no_rank,
        "follows": layer.follows,
    }


def _ties(layer: str, groups: tuple[ChannelGroup, ...]) -> dict[str, Any]:
    mine = [group for group in groups if layer in group.layers]
    tied = dict.fromkeys(x for group in mine for x in group.layers if x != layer)
    return {
        "protected": any(group.protected for group in mine),
        "stopped": any(group.stopped for group in mine),
        "tied_with": list(tied),
        "read_whole_by": list(dict.fromkeys(x for group in mine for x in group.read_whole_by)),
    }
