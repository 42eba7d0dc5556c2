"""Sensitivity: what a network answers when one layer, or one group of layers, loses its filters."""

import copy
import math
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.overrides import TorchFunctionMode

from utils.graph.channel_graph import ChannelGraph
from utils.graph.groups import ChannelGroup, channel_groups
from utils.graph.operations import FACTS, SIZES, operation_name
from utils.graph.values import mapped, tensors_in
from utils.metrics.accuracy import ACCURACY
from utils.pruning.compress_rates import num_removed
from utils.pruning.group_plan import channel_scores
from utils.removal.masks import ParameterMasks
from utils.removal.surgery import places_left
from utils.runs.borrowed_state import evaluating
from utils.runs.job_folder import JobFolder
from utils.runs.log import read_log
from utils.runs.schema import TEXT, Kind, Nullable, Optional, number, whole

_POINT = (  # the schema of a `ScanPoint` in the log of a scan
    {
        "layers": [TEXT],
        "rate": number(0, below=1),
        "channels": whole(1),
        "removed": whole(0),
        "filters_removed": whole(0),
        "macs_removed": whole(0),
        "recalibrated_correct": Optional(Nullable(whole(0))),
        "recalibrated_loss": Optional(Nullable(number(0))),
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
    `loss` is the mean cross-entropy in nats. Where the norms' statistics were re-estimated under
    the masks, the `recalibrated` are what the network then answers.
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
    recalibrated_correct: int | None = None
    recalibrated_loss: float | None = None

    @property
    def answered(self) -> tuple[int, float]:
        """How many are right, and the loss; recalibrated, where that was done."""
        if self.recalibrated_correct is None or self.recalibrated_loss is None:
            return self.correct, self.loss
        return self.recalibrated_correct, self.recalibrated_loss


def read_points(folder: Path) -> list[ScanPoint]:
    """Return the points in a scan's job folder, those of an unfinished scan, too.

    Raises:
        ValueError: the folder holds no log, or one of something else.
    """
    rows = read_log(JobFolder(folder).log, _POINT, "a point of a scan")
    names = [field.name for field in fields(ScanPoint)]
    return [
        ScanPoint(**{name: row.get(name) for name in names} | {"layers": tuple(row["layers"])})
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

    `macs` is {name of a weight: MACs of its layer in the dense `model`}.
    """
    sizes = graph.sizes(places_left(model, graph, masks))
    left = 0
    for weight, dense in macs.items():
        numbers = math.prod(map(len, graph.parameters.get(weight, ())))
        kept = math.prod(map(len, sizes.get(weight, graph.parameters.get(weight, ()))))
        left += dense * kept // numbers
    return left


def parameters_left(model: nn.Module, graph: ChannelGraph, masks: Masks) -> int:
    """Return the parameters of the network that removal would leave, without making it."""
    sizes = graph.sizes(places_left(model, graph, masks))
    return sum(_left(p, sizes.get(name)) for name, p in model.named_parameters())


def _left(weight: Tensor, kept: tuple[Tensor, ...] | None) -> int:
    """Return how many of a parameter's numbers stay at these positions."""
    return weight.numel() if kept is None else math.prod(len(places) for places in kept)


@torch.inference_mode()
def run_masked(
    model: nn.Module,
    graph: ChannelGraph,
    applied: Sequence[ParameterMasks],
    batches: Iterable[tuple[Tensor, Tensor]],
    add: Callable[[int, Tensor, Tensor], None],
) -> None:
    """Call add(k, logits, labels) with what `model` answers on every batch under applied[k].

    What runs before a masked parameter is read runs once a batch, whatever the number of masks. The
    model is in eval mode meanwhile, and as it was afterwards.

    Args:
        batches: (images [N, 3, H, W], labels [N]), on the model's device.
    """
    masked = {id(parameter) for one in applied for parameter in one.parameters}
    with evaluating(model):
        for images, labels in batches:
            start = _SharedStart(masked)
            for k, one in enumerate(applied):
                with one.applied():
                    with start:
                        logits = model(images)
                    add(k, logits, labels)


class _SharedStart(TorchFunctionMode):
    """Lets what runs before one of some parameters is read run once, in the first pass within it.

    Later passes are given what it gave, in copies: what runs behind may work in place.
    """

    def __init__(self, parameters: Collection[int]):
        super().__init__()
        self._ends = parameters
        self._given: list[list[Any]] = []  # by function: weak references, then tensors
        self._started = self._known = False
        self._values: list[list[Tensor]] = []

    def __enter__(self):
        self._number, self._started = 0, True
        if self._known:
            self._values = copy.deepcopy(self._given)
        return super().__enter__()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = operation_name(func)
        if not self._started or name in FACTS or name in SIZES:
            return func(*args, **kwargs)
        if any(id(tensor) in self._ends for tensor in tensors_in((args, kwargs))):
            self._end()
            return func(*args, **kwargs)
        self._number += 1
        if self._known:
            return self._values[self._number - 1][0]
        out = func(*args, **kwargs)
        self._given.append([mapped(out, _Reference)])
        return out

    def _end(self) -> None:
        """Keep what the first pass still holds; of the rest, sizes are enough."""
        self._started = False
        if not self._known:
            self._known = True
            self._given = copy.deepcopy([[_resolved(out)] for (out,) in self._given])


class _Reference:
    """A tensor that may be gone, and its likeness without memory."""

    def __init__(self, tensor: Tensor):
        self._weak, self._likeness = weakref.ref(tensor), tensor.to("meta")

    def tensor(self) -> Tensor:
        """Return the tensor, or its likeness."""
        found = self._weak()
        return self._likeness if found is None else found


def _resolved(out: Any) -> Any:
    if isinstance(out, _Reference):
        return out.tensor()
    if isinstance(out, dict):
        return {key: _resolved(value) for key, value in out.items()}
    if isinstance(out, list | tuple):
        items = [_resolved(item) for item in out]
        return type(out)(*items) if hasattr(out, "_fields") else type(out)(items)
    return out


def unit_name(layers: Sequence[str]) -> str:
    """Return a short name of a unit: its first layer, and how many more there are."""
    return layers[0] + (f" (+{len(layers) - 1})" if len(layers) > 1 else "")
