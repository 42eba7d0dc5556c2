"""Sensitivity: what a network answers when one layer, or one group of layers, loses its filters."""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.fx as fx
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.groups import ChannelGroup, channel_groups
from utils.metrics.accuracy import ACCURACY
from utils.pruning.compress_rates import num_removed
from utils.pruning.group_plan import channel_scores
from utils.removal.masks import ParameterMasks
from utils.runs.borrowed_state import evaluating
from utils.runs.job_folder import JobFolder
from utils.runs.log import read_log
from utils.runs.schema import TEXT, Kind, number, whole

_POINT = (  # the schema of a `ScanPoint` in the log of a scan
    {
        "layers": [TEXT],
        "rate": number(0, below=1),
        "channels": whole(1),
        "removed": whole(0),
        "filters_removed": whole(0),
        "macs_removed": whole(0),
    },
    ACCURACY,
    Kind("at least one layer", lambda row: row["layers"]),
)
Masks = Mapping[str, Tensor]  # {layer: bool [filters]}, True is kept


@dataclass(frozen=True)
class ScanPoint:
    """What is left of a network's accuracy when only `layers` lose filters, at one compress rate.

    `removed` of the `channels` that the layers share are masked, which are `filters_removed`
    filters; as tensors that really shrink, `macs_removed` multiply-accumulates of one image. Where
    single weights go, they stand in the place of channels, and no tensor shrinks.
    `loss` is the mean cross-entropy in nats.
    """

    layers: tuple[str, ...]
    rate: float
    channels: int
    removed: int
    filters_removed: int
    macs_removed: int
    correct: int
    images: int
    loss: float


def read_points(folder: Path) -> list[ScanPoint]:
    """Return the points in a scan's job folder, those of an unfinished scan, too.

    Raises:
        ValueError: the folder holds no log, or one of something else.
    """
    rows = read_log(JobFolder(folder).log, _POINT, "a point of a scan")
    names = [field.name for field in fields(ScanPoint)]
    return [
        ScanPoint(**{name: row[name] for name in names} | {"layers": tuple(row["layers"])})
        for row in rows
    ]


def scan_units(
    graph: ChannelGraph, scores: Mapping[str, Tensor], *, across_sums: bool
) -> list[ChannelGroup]:
    """Return what is scanned one by one: the groups that have scores and do not reach the output.

    `across_sums` makes a residual stream one unit; without it, a conv that feeds one is its own.
    """
    groups = channel_groups(graph, across_sums=across_sums)
    return [g for g in groups if not g.protected and any(layer in scores for layer in g.layers)]


def masks_at(
    unit: ChannelGroup, scores: Mapping[str, Tensor], filters: Mapping[str, int], rate: float
) -> dict[str, Tensor]:
    """Return the masks without the int(rate * C) lowest-scoring of the unit's C channels.

    A channel scores the mean over its filters; ties go by index, the lower first. `filters` is
    {layer: number of filters}.
    """
    order = channel_scores(unit, scores).argsort(stable=True).tolist()
    masks = {layer: torch.ones(filters[layer], dtype=torch.bool) for layer in unit.layers}
    for channel in order[: num_removed(rate, len(order))]:
        for layer, index in unit.channels[channel]:
            masks[layer][index] = False
    return masks


def macs_left(model: nn.Module, graph: ChannelGraph, macs: Mapping[str, int], masks: Masks) -> int:
    """Return the MACs of the network that removal would leave, without making it.

    `macs` is {conv or linear: its MACs in the dense `model`}.
    """
    kept = graph.kept_positions(graph.kept(masks))
    return sum(_left(dense, model.get_submodule(name), *kept[name]) for name, dense in macs.items())


def parameters_left(model: nn.Module, graph: ChannelGraph, masks: Masks) -> int:
    """Return the parameters of the network that removal would leave, without making it."""
    total = sum(parameter.numel() for parameter in model.parameters())
    for name, (outputs, inputs) in graph.kept_positions(graph.kept(masks)).items():
        module = model.get_submodule(name)
        for parameter in module.parameters(recurse=False):
            whole = parameter.numel()
            stays = len(outputs) if parameter.dim() == 1 else _left(whole, module, outputs, inputs)
            total -= whole - stays
    return total


def _left(count: int, layer: nn.Module, outputs: Tensor, inputs: Tensor) -> int:
    """Return what stays of a conv's or linear's MACs or weights at these positions."""
    if getattr(layer, "groups", 1) > 1:  # whole groups go, each reads as many channels
        return count * len(outputs) // layer.out_channels
    return count * len(outputs) * len(inputs) // layer.weight.shape[:2].numel()


@torch.inference_mode()
def run_masked(
    model: nn.Module,
    graph: ChannelGraph,
    applied: Sequence[ParameterMasks],
    batches: Iterable[tuple[Tensor, Tensor]],
    add: Callable[[int, Tensor, Tensor], None],
) -> None:
    """Call add(k, logits, labels) with what `model` answers on every batch under applied[k].

    What runs before the first masked layer runs once a batch, whatever the number of masks. The
    model is in eval mode meanwhile, and as it was afterwards.

    Args:
        batches: (images [N, 3, H, W], labels [N]), on the model's device.
    """
    changed = set().union(*(one.modules for one in applied))
    with evaluating(model):
        before, rest = _split_before(fx.GraphModule(model, graph.graph), changed)
        for images, labels in batches:
            values = before(images)
            for k, one in enumerate(applied):
                with one.applied():  # `rest` may work in place, also on what shares memory
                    add(k, rest(*copy.deepcopy(values)), labels)


def _split_before(
    traced: fx.GraphModule, modules: Collection[str]
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Return (before, rest) with rest(*before(images)) = traced(images).

    `rest` starts at the first call of one of the modules; where none is called, it is empty.
    """
    nodes = list(traced.graph.nodes)
    calls = [node.op == "call_module" and node.target in modules for node in nodes]
    cut = calls.index(True) if any(calls) else len(nodes) - 1
    later = set(nodes[cut:])
    live = [node for node in nodes[:cut] if not later.isdisjoint(node.users)]
    before, rest = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes[:cut]:
        copies[node] = before.node_copy(node, copies.__getitem__)
    before.output(tuple(copies[node] for node in live))
    copies = {node: rest.placeholder(node.name) for node in live}
    for node in nodes[cut:]:
        copies[node] = rest.node_copy(node, copies.__getitem__)
    return fx.GraphModule(traced, before).eval(), fx.GraphModule(traced, rest).eval()


def unit_name(layers: Sequence[str]) -> str:
    """Return a short name of a unit: its first layer, and how many more there are."""
    return layers[0] + (f" (+{len(layers) - 1})" if len(layers) > 1 else "")
