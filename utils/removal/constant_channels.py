"""Which channels of a network are constant: the same number at every place, for every image.

A channel counts as constant only where that is proved: the relations say that it does not depend
on the image (a filter whose weights are zero, a norm whose scale is zero, and what is made of
such), and one run on numbers reads its value and shows it to be the same at every place.
"""

from typing import Any

import torch
import torch.fx as fx
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.filters import filters_first
from utils.graph.labels import axis_vector
from utils.graph.operations import operation_name
from utils.graph.relations import (
    CONSTANT,
    ZERO,
    Combined,
    Filters,
    Norm,
    Output,
    Relation,
    Source,
    Whole,
)
from utils.runs.borrowed_state import evaluating

_ROUNDING = 1e-12  # relative: what float64 pooling may make of equal numbers
_UNKNOWN = float("nan")


class ConstantRun(fx.Interpreter):
    """Runs a float64 network in eval mode and notes the constants among its channels.

    Attributes:
        emitted: float64 [num_labels], what a constant channel is where it is computed, else NaN.
        reads: {node: what its relation reads}, float64 of its inputs' shape: a constant, or NaN.
        lost: {label: what makes it stop being one number}, for constants that do not last.
    """

    def __init__(self, model: nn.Module, channels: ChannelGraph):
        super().__init__(fx.GraphModule(model, channels.graph))
        self.emitted = torch.full((channels.num_labels,), _UNKNOWN, dtype=torch.float64)
        self.reads: dict[str, Tensor] = {}
        self.lost: dict[int, str] = {}
        self._labels = channels.labels
        self._relations = {r.node: r for r in channels.relations if not isinstance(r, Output)}
        self._constant = torch.zeros(channels.num_labels, dtype=torch.bool)
        self._constant[[ZERO, CONSTANT]] = True
        images = next(n for n in channels.graph.nodes if n.op == "placeholder")
        generator = torch.Generator().manual_seed(0)
        shape = channels.labels[images].shape
        with evaluating(model), torch.no_grad():
            self.run(torch.randn(shape, generator=generator, dtype=torch.float64))

    def run_node(self, n: fx.Node) -> Any:
        relation = self._relations.get(n.name)
        if relation is not None:
            if not isinstance(relation, Source):  # read now: operations in place change it later
                self.reads[n.name] = self._inputs(n, relation)
            self._constant[relation.outputs] = self._follows(relation)
        real = super().run_node(n)
        if isinstance(self._labels.get(n), Tensor):
            found, values = self._constants_in(n, real)
            if relation is not None:
                self.emitted[found] = values
        return real

    def _inputs(self, node: fx.Node, relation: Relation) -> Tensor:
        inputs = relation.inputs
        if not isinstance(relation, Combined):
            return self._values(node.all_input_nodes[0])[inputs]
        operands = [a for a in node.args[:2] if isinstance(self._labels.get(a), Tensor)]
        if len(operands) == 1:  # a reduction: all its rows come from one value
            return self._values(operands[0])[inputs]
        return torch.stack([self._values(a)[inputs[:, k]] for k, a in enumerate(operands)], 1)

    def _values(self, node: fx.Node) -> Tensor:
        """Return float64 [num_labels]: the constants that the node's value holds now, else NaN."""
        table = torch.full_like(self.emitted, _UNKNOWN)
        table[ZERO] = 0.0
        found, values = self._constants_in(node, self.env[node])
        table[found] = values
        return table

    def _constants_in(self, node: fx.Node, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return (labels [K], values [K]) of the constants in `real`; forget those that vary."""
        found, low, high = _ranges(self._labels[node], real.double(), self._constant)
        same = high - low <= _ROUNDING * torch.maximum(low.abs(), high.abs())
        carried = node.name not in self._relations
        why = "makes it differ from place to place"
        if carried and _depends_on_size(node, self.module):
            same &= (low == 0) & (high == 0)
            why = "makes it depend on the size of the images"
        lost = found[~same & (found > CONSTANT)]
        self._constant[lost] = False
        if carried:
            where = node.target if node.op == "call_module" else node.name
            self.lost |= dict.fromkeys(lost.tolist(), f"{where} {why}")
        return found[same], low[same]

    def _follows(self, relation: Relation) -> Tensor:
        """Return bool [C_out]: are the outputs constant, as far as their inputs tell?"""
        none = torch.zeros(len(relation.outputs), dtype=torch.bool)
        if isinstance(relation, Source):
            return none
        values = self.reads[relation.node]
        known = ~values.isnan()
        if isinstance(relation, Filters):
            module = self.module.get_submodule(relation.module)
            settled = known if not why_unfoldable(module) else values == 0
            by_group = settled.reshape(relation.groups, -1)
            by_filter = by_group.repeat_interleave(len(none) // relation.groups, 0)
            return (by_filter | ~reads_of(module)).all(1)
        if isinstance(relation, Norm):
            by_group = known.reshape(relation.groups, -1).all(1, keepdim=True)
            scaled = scales_of(self.module.get_submodule(relation.module), len(none))
            return by_group.expand(-1, len(none) // relation.groups).flatten() | ~scaled
        if isinstance(relation, Whole):
            return none | known.all()
        if isinstance(relation, Combined):
            zero = {"any": none[:, None], "all": values == 0, "first": values[:, :1] == 0}
            return known.all(1) | zero[relation.mode].any(1)
        return known.reshape(len(none), -1).all(1)


def kernel_taps(module: nn.Module) -> Tensor:
    """Return a conv's or linear's weight as [C_out, C_in / groups, taps of the kernel]."""
    weight = filters_first(module)
    return weight.reshape(*weight.shape[:2], -1)


def reads_of(module: nn.Module) -> Tensor:
    """Return bool [C_out, C_in / groups]: does the filter have a weight for the channel?"""
    return (kernel_taps(module) != 0).any(2).cpu()


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


def _depends_on_size(node: fx.Node, root: nn.Module) -> bool:
    """True if the node may make another number of a constant map for images of another size."""
    name = operation_name(node, root)
    if name == "sum":
        return True
    if not name.startswith(("avgpool", "lppool")):
        return False
    if node.op == "call_module":
        padding = getattr(root.get_submodule(str(node.target)), "padding", 0)
    else:
        padding = node.kwargs.get("padding", node.args[3] if len(node.args) > 3 else 0)
    return any(padding) if isinstance(padding, tuple | list) else bool(padding)


def _ranges(labels: Tensor, real: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (the `wanted` labels that occur [K], their smallest value [K], their largest [K])."""
    found = axis_vector(labels)
    dim, flat = (0, labels.flatten()) if found is None else found
    rows = real.reshape(-1, 1) if found is None else real.movedim(dim, 0).flatten(1)
    chosen = wanted[flat]
    labels, where = flat[chosen].unique(return_inverse=True)
    infinite = torch.full((len(labels),), torch.inf, dtype=torch.float64)
    lowest = infinite.scatter_reduce(0, where, rows[chosen].amin(1), "amin")
    return labels, lowest, (-infinite).scatter_reduce(0, where, rows[chosen].amax(1), "amax")
