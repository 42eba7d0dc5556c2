"""Which conv each rank file and compress rate belongs to, and where its feature map is taken.

The `official` sites are the official code's choices, quirks included, as data per architecture:

- VGG: convs 2, 4, 7 and 10 are ranked *after* the max-pooling that follows them, the others after
  their ReLU; the 13th conv has no rank file and is never pruned, so a 13th rate is ignored.
- CIFAR ResNets: the second conv of a block is ranked after the residual sum and ReLU, that is, on
  the block's output rather than on its own map.
- ResNet-50: likewise the third conv; where a block has a shortcut conv, both are ranked on the
  same maps. The stem is ranked after its max-pooling. The official *counter* of MACs hands the four
  rates of such a block out in another order than the official masks do (`counted_rate`).
- DenseNet: a conv is ranked on the activation of the *next* layer, behind that layer's norm, where
  its channels are the last ones.
- GoogLeNet: one rate and four files a block, ranked on the block's output, branch by branch, after
  the max-pooling where one follows (b3, e4). Both 3 x 3 convs of the "5 x 5" branch go by the file
  of the second. The 1 x 1 convs that reduce are never pruned. The official counter takes the rate
  of block d4 for c4.
- MobileNets (HRankPlus): every conv is ranked on its own activation, but a depthwise conv keeps
  the filters that the conv before it keeps: they are the same channels.

The sites `conv` rank every conv on its own activation instead, the sites `read` on the maps that
the next layer reads, found in the graph: those are the official ones wherever the official code
ranks what a layer passes on (all but GoogLeNet's shared file).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
import torch.nn as nn

from utils.graph.activation_sites import activation_sites
from utils.graph.channel_graph import ChannelGraph, trace_channels
from utils.graph.network import Network
from utils.graph.prunable import RankLayer, RankLayers, Site
from utils.graph.read_sites import read_sites
from utils.runs.choices import SITES


def rank_layers(model: nn.Module, name: str) -> RankLayers:
    """Return the rank layers, on the official sites, of a dense network of the registry's."""
    return _FAMILIES[name.partition("_")[0]](model)


def layers_at(network: Network, sites: str) -> RankLayers:
    """Return a network's rank layers on sites of a kind.

    "official": those of the official code or, of a network that it does not know, each conv's own
    activation; "conv": that of any network; "read": the maps as the next layer reads them.

    Raises:
        ValueError: `sites` is not one of SITES.
    """
    if sites not in SITES:
        raise ValueError(f"unknown sites {sites!r}: expected one of {', '.join(SITES)}")
    known = network.layers
    if sites == "read" or (sites == "official" and _moved(network)):
        read = read_sites(network.graph)
        return replace(known, layers=tuple(_on_sites(known.layers, read)))
    if sites == "official" or known.by_group:
        return known
    own = {conv: Site(module) for conv, module in _own_modules(network.graph).items()}
    return replace(known, layers=tuple(_on_sites(known.layers, own)))


def _moved(network: Network) -> bool:
    """True for a smaller network, where an official site is a slice of the dense one's channels."""
    slices = [site for site in network.layers.sites() if site.stop is not None]
    return bool(network.before or network.form == "remove") and bool(slices)


def _own_modules(graph: ChannelGraph) -> dict[str, str]:
    """Return {conv: module whose output is its own activation}."""
    sites = activation_sites(graph)
    return {conv: site.module for conv, site in sites.items() if site.module}


def _on_sites(layers: tuple[RankLayer, ...], sites: Mapping[str, Site]) -> Iterator[RankLayer]:
    """Yield the layers on other sites; convs that shared a file and now differ get one each."""
    moved = [
        replace(layer, site=layer.site and sites.get(layer.conv, layer.site)) for layer in layers
    ]
    last = {layer.file: layer for layer in moved}
    for layer in moved:
        shared = last[layer.file].site != layer.site
        yield replace(layer, file=layer.file.replace(".npy", "_inner.npy")) if shared else layer


def _layer(rate: int, conv: str, site: Site | str, *, counted: int | None = None) -> RankLayer:
    """Return the layer of the rate at position `rate`, whose file is numbered from 1."""
    where = Site(site) if isinstance(site, str) else site
    file = f"rank_conv{rate + 1}.npy"
    return RankLayer(conv, file, where, rate, rate if counted is None else counted)


def _in_turn(layers: list[RankLayer], ignored_rates: int = 0) -> RankLayers:
    return RankLayers(tuple(layers), len(layers), ignored_rates)


def _convs(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Return {path: conv} in the order of the parameters."""
    return {path: m for path, m in model.named_modules() if isinstance(m, nn.Conv2d)}


def _vgg(model: nn.Module) -> RankLayers:
    names = [name for name, _ in model.features.named_children()]
    layers = []
    for name in names:
        if name.startswith("conv"):
            relu = name.replace("conv", "relu")
            behind = names[names.index(relu) + 1 :][:1]
            site = behind[0] if behind and behind[0].startswith("pool") else relu
            layers.append(_layer(len(layers), f"features.{name}", f"features.{site}"))
    return _in_turn(layers[:-1], ignored_rates=1)


def _resnet(model: nn.Module) -> RankLayers:
    """CIFAR ResNets and ResNet-50: a stem, then blocks with a ReLU behind each conv."""
    stem = "maxpool" if hasattr(model, "maxpool") else "relu"
    layers = [_layer(0, "conv1", stem)]
    blocks = dict.fromkeys(path.rpartition(".conv")[0] for path in _convs(model) if ".conv" in path)
    for block in blocks:
        modules = dict(model.get_submodule(block).named_modules())
        numbers = [k for k in (1, 2, 3) if f"conv{k}" in modules]
        first = len(layers)
        shortcut = int("downsample.0" in modules)
        for k in numbers:
            counted = first + k - 1 + shortcut
            site = f"{block}.relu{k}"
            layers.append(_layer(len(layers), f"{block}.conv{k}", site, counted=counted))
        if shortcut:
            layers.append(_layer(len(layers), f"{block}.downsample.0", site, counted=first))
    return _in_turn(layers)


def _densenet(model: nn.Module) -> RankLayers:
    convs = _convs(model)
    readers = [*list(convs)[1:], ""]  # the conv whose pre-activation shows this one's channels
    layers = []
    for (path, conv), reader in zip(convs.items(), readers, strict=True):
        width = convs[reader].in_channels if reader else model.fc.in_features
        relu = reader.removesuffix("conv1") + "relu"
        site = Site(relu, width - conv.out_channels, width)
        layers.append(_layer(len(layers), path, site))
    return _in_turn(layers)


_BRANCHES = {  # conv within an Inception block -> its file's suffix
    "branch1x1.0": "n1x1",
    "branch3x3.3": "n3x3",
    "branch5x5.3": "n5x5",
    "branch5x5.6": "n5x5",
    "branch_pool.1": "pool_planes",
}


def _googlenet(model: nn.Module) -> RankLayers:
    layers = [_layer(0, "pre_layers.0", "pre_layers")]
    blocks = [name for name, _ in model.named_children() if name.startswith("inception_")]
    for rate, block in enumerate(blocks, start=1):
        behind = {"inception_b3": "maxpool1", "inception_e4": "maxpool2"}.get(block, block)
        counted = blocks.index("inception_d4") + 1 if block == "inception_c4" else rate
        convs = {name: model.get_submodule(f"{block}.{name}") for name in _BRANCHES}
        start = 0
        for name, conv in convs.items():
            stop = start + conv.out_channels
            site = Site(behind, start, stop)
            layer = _layer(rate, f"{block}.{name}", site, counted=counted)
            file = f"rank_conv{rate + 1}_{_BRANCHES[name]}.npy"
            layers.append(replace(layer, file=file))
            if name != "branch5x5.3":  # its channels are not in the block's output
                start = stop
    return RankLayers(tuple(layers), 1 + len(blocks))


def _mobilenet(model: nn.Module) -> RankLayers:
    own = _own_modules(trace_channels(model, torch.zeros(1, 3, 32, 32)))
    layers: list[RankLayer] = []
    rate, before = -1, ""
    for number, (path, conv) in enumerate(_convs(model).items(), start=1):
        depthwise = conv.groups > 1
        if not depthwise:
            rate, before = rate + 1, path
        file = f"rank_conv{number}.npy"
        follows = before if depthwise else None
        layers.append(RankLayer(path, file, Site(own[path]), rate, rate, follows))
    return RankLayers(tuple(layers), rate + 1)


_FAMILIES: dict[str, Callable[[nn.Module], RankLayers]] = {
    "vgg": _vgg,
    "resnet": _resnet,
    "densenet": _densenet,
    "googlenet": _googlenet,
    "mobilenet": _mobilenet,
}
