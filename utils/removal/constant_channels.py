"""Which channels of a network are constant: the same number at every place, for every image.

A channel counts as constant only where that is proved: the relations say that it does not depend
on the image (a filter whose weights are zero, a norm whose scale is zero, and what is made of
such), and one run on numbers reads its value and shows it to be the same at every place.
"""

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.attention import Heads
from utils.graph.channel_graph import ChannelGraph
from utils.graph.filters import filters_first
from utils.graph.forward_pass import left_alone, watching_modules
from utils.graph.inputs import called, drawn, repeated
from utils.graph.labels import axis_vector
from utils.graph.operations import ALONG
from utils.graph.relations import (
    CONSTANT,
    FIRST_CHANNEL,
    FIXED,
    ZERO,
    Absent,
    Blocks,
    Combined,
    Filters,
    Norm,
    Output,
    Relation,
    Source,
    Tied,
)
from utils.graph.tracing import Operation
from utils.graph.values import Value
from utils.removal.following import Follower
from utils.runs.borrowed_state import evaluating, training

_ROUNDING = 1e-12  # relative: what float64 pooling may make of equal numbers
_UNKNOWN = float("nan")


class ConstantRun(Follower):
    """Runs a float64 network in one mode and notes the constants among its channels.

    Attributes:
        emitted: float64 [num_labels], what a constant channel is where it is computed, else NaN.
        reads: {id of a relation: what it reads}, float64 of its inputs' shape: a constant, or NaN.
        lost: {label: what makes it stop being one number}, for constants that do not last.
    """

    def __init__(self, model: nn.Module, channels: ChannelGraph, *, train: bool = False):
        everything = torch.ones(channels.num_labels, dtype=torch.bool)
        super().__init__(model, channels, channels.runs[-1 if train else 0], everything)
        self.emitted = torch.full((channels.num_labels,), _UNKNOWN, dtype=torch.float64)
        self.reads: dict[int, Tensor] = {}
        self.lost: dict[int, str] = {}
        self.modules = dict(model.named_modules())
        self._constant = torch.zeros(channels.num_labels, dtype=torch.bool)
        self._constant[[ZERO, CONSTANT, FIXED]] = True
        for vectors in channels.parameters.values():
            for vector in vectors:
                self._constant[vector] = True
        for relation in channels.relations:
            if isinstance(relation, Absent):
                self._constant[relation.outputs] = True
            if not isinstance(relation, Source | Output | Tied):
                self.reads[id(relation)] = torch.full(relation.inputs.shape, _UNKNOWN).double()
        generator = torch.Generator().manual_seed(0)
        shaped = repeated(channels.example, 2, model)
        inputs = drawn(shaped, lambda t: _drawn(t, generator))
        mode = training if train else evaluating
        with left_alone(model), mode(model), torch.no_grad():
            self.source(inputs)
            with watching_modules(self), self:
                called(model, inputs)

    def loose(self, graph: ChannelGraph) -> Tensor:
        """Meet every operation, since what is of no channel may be constant, too."""
        return torch.zeros(graph.num_labels, dtype=torch.bool)

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Run what aligned layers do, too: it is what was traced."""

    def layer(self, relation: Filters | Norm) -> nn.Module | None:
        """Return the relation's module if it computes just what its parameters say, else None."""
        module = self.modules.get(relation.module)
        kinds = nn.modules.conv._ConvNd | nn.Linear | nn.modules.batchnorm._NormBase
        plain = isinstance(module, kinds | nn.GroupNorm | nn.LayerNorm)
        own = plain and "weight" in vars(module)["_parameters"]
        return module if own else None

    def before(self, known: Operation, operands: list[Tensor]) -> None:
        """Note what the operation's relations read; operations in place change it later."""
        table = torch.full_like(self.emitted, _UNKNOWN)
        table[ZERO] = 0.0
        for value, tensor in zip(known.reads, operands, strict=True):
            labels, values = self._constants_in(known, value, tensor)
            table[labels] = values
        for relation in self.run.relations[slice(*known.made)]:
            if isinstance(relation, Source | Output | Tied):
                continue
            read = self.reads[id(relation)] = table[relation.inputs]
            self._constant[relation.outputs] = self._follows(relation)
            if isinstance(relation, Blocks):
                same = (read == read[:, :1]).all(1)
                table[relation.outputs] = torch.where(same, read[:, 0], _UNKNOWN)

    def after(self, known: Operation, found: list[Tensor]) -> None:
        """Note the constants that it gives."""
        made = torch.zeros_like(self._constant)
        for relation in self.run.relations[slice(*known.made)]:
            made[relation.outputs] = True
        for value, tensor in zip(known.gives, found, strict=True):
            labels, values = self._constants_in(known, value, tensor, carried=not made.any())
            self.emitted[labels] = torch.where(made[labels], values, self.emitted[labels])

    def _constants_in(
        self, known: Operation, value: Value, tensor: Tensor, *, carried: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (labels [K], values [K]) of the constants in a tensor; forget those that vary."""
        if not value.planes or not tensor.numel() or tensor.is_complex():
            return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.float64)
        parts = [_ranges(p, tensor.detach().cpu().double(), self._constant) for p in value.planes]
        found, low, high = (torch.cat(part) for part in zip(*parts, strict=True))
        same = high - low <= _ROUNDING * torch.maximum(low.abs(), high.abs())
        if value.live and carried is not None:
            why = "makes it differ from place to place"
            if _depends_on_size(known.name):
                same &= (low == 0) & (high == 0)
                why = "makes it depend on the size of the images"
            lost = found[~same & (found >= FIRST_CHANNEL)]
            self._constant[lost] = False
            if carried:
                self.lost |= dict.fromkeys(lost.tolist(), f"{known.path or known.name} {why}")
        return found[same], low[same]

    def _follows(self, relation: Relation) -> Tensor:
        """Return bool [C_out]: are the outputs constant, as far as their inputs tell?"""
        none = torch.zeros(len(relation.outputs), dtype=torch.bool)
        values = self.reads[id(relation)]
        known = ~values.isnan()
        if isinstance(relation, Filters):
            module = self.layer(relation)
            if module is None:
                return none
            settled = known if not why_unfoldable(module) else values == 0
            by_group = settled.reshape(relation.groups, -1)
            by_filter = by_group.repeat_interleave(len(none) // relation.groups, 0)
            return (by_filter | ~reads_of(module)).all(1)
        if isinstance(relation, Norm):
            module = self.layer(relation)
            by_group = known.reshape(relation.groups, -1).all(1, keepdim=True)
            known = by_group.expand(-1, len(none) // relation.groups).flatten()
            return known if module is None else known | ~scales_of(module, len(none))
        if isinstance(relation, Heads):
            return known.all(1) | relation.weighs_zeros(values)
        if not isinstance(relation, Combined):
            return known.all(1)
        zero = {
            "any": none[:, None],
            "all": values == 0,
            "first": values[:, :1] == 0,
            "never": none[:, None],
        }
        return known.all(1) | zero[relation.mode].any(1)


def _drawn(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64)


def kernel_taps(module: nn.Module) -> Tensor:
    """Return a conv's or linear's weight as [C_out, C_in / groups, taps of the kernel]."""
    weight = filters_first(module)
    return weight.reshape(*weight.shape[:2], -1)


def reads_of(module: nn.Module) -> Tensor:
    """Return bool [C_out, C_in / groups]: does the filter have a weight for the channel?"""
    return (kernel_taps(module) != 0).any(2).cpu()


def calls_reading(graph: ChannelGraph, layer: Filters | Norm) -> int:
    """Return how many calls read the layer's parameters, its own and those of layers tied to it."""
    layers = (r for r in graph.runs[0].relations if isinstance(r, Filters | Norm))
    return sum(bool(torch.isin(r.rows, layer.rows).any()) for r in layers)


def scales_of(norm: nn.Module, channels: int) -> Tensor:
    """Return bool [C]: does the norm pass the channel on, or is its scale zero?"""
    weight = norm.weight
    return torch.ones(channels, dtype=torch.bool) if weight is None else (weight != 0).cpu()


def why_unfoldable(module: nn.Module) -> str:
    """Return why a conv or linear does not make one number of a constant channel, or ""."""
    if isinstance(module, nn.Linear):
        return ""
    if module.transposed:
        return "is a transposed conv, which spreads it unevenly"
    if module.padding_mode == "zeros" and _pads(module):
        return "pads it with zeros, which its border sees"
    return ""


def _pads(conv: nn.modules.conv._ConvNd) -> bool:
    if conv.padding == "same":
        return any(size > 1 for size in conv.kernel_size)
    return conv.padding != "valid" and any(conv.padding)


def _depends_on_size(name: str) -> bool:
    """True if the operation may make another number of a constant map of another size."""
    sums = "sum nansum prod logsumexp norm vectornorm countnonzero".split()
    return name in ALONG or name in sums or name.startswith(("avgpool", "lppool"))


def _ranges(labels: Tensor, real: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (the `wanted` labels that occur [K], their smallest value [K], their largest [K])."""
    found = axis_vector(labels)
    dim, flat = (0, labels.flatten()) if found is None else found
    rows = real.reshape(-1, 1) if found is None else real.movedim(dim, 0).reshape(len(flat), -1)
    chosen = wanted[flat]
    labels, where = flat[chosen].unique(return_inverse=True)
    infinite = torch.full((len(labels),), torch.inf, dtype=torch.float64)
    lowest = infinite.scatter_reduce(0, where, rows[chosen].amin(1), "amin")
    return labels, lowest, (-infinite).scatter_reduce(0, where, rows[chosen].amax(1), "amax")
