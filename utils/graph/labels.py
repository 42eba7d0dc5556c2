"""Runs a torch.fx trace on channel labels: which channel each position of an activation came from.

A *label* is an integer naming one channel of the operation that computed it; 0 is "always zero"
(padding) and 1 is "some constant". Labels have their activation's shape. Data movement (cat, slice,
reshape, ...) is executed on the labels themselves by the same torch call; for every other operation
`channel_operations` knows what it does to a channel that is zero.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.fx as fx
import torch.nn as nn
from torch import Tensor

from utils.graph.operations import (
    CARRIERS,
    CONSTANTS,
    MIXERS,
    MOVEMENTS,
    PRODUCTS,
    QUOTIENTS,
    REDUCTIONS,
    SOFTMAXES,
    SUMS,
    operation_name,
    run_movement,
)
from utils.graph.relations import (
    CONSTANT,
    ZERO,
    Blocks,
    Combined,
    Constants,
    Filters,
    Norm,
    Output,
    Relation,
    Source,
    Whole,
)
from utils.graph.tracing import owner


def compressed(labels: Tensor) -> Tensor:
    """Return equal labels in which every dimension along which they do not vary has stride 0."""
    for dim in range(labels.dim()):
        if labels.size(dim) > 1 and labels.stride(dim) != 0:
            first = labels.narrow(dim, 0, 1)
            if torch.equal(labels, first.expand_as(labels)):
                labels = first.expand_as(labels)
    return labels


def axis_vector(labels: Tensor) -> tuple[int, Tensor] | None:
    """Return (dim, vector) of compressed labels that vary along one dimension only, else None.

    Labels that vary nowhere are given dimension 1, where torch keeps channels.
    """
    varying = [d for d in range(labels.dim()) if labels.size(d) > 1 and labels.stride(d) != 0]
    if len(varying) > 1 or labels.dim() < 2:
        return None
    dim = varying[0] if varying else 1
    return dim, labels[tuple(slice(None) if d == dim else 0 for d in range(labels.dim()))]


class LabelRun(fx.Interpreter):
    """Interprets a trace on real values and on labels side by side, recording the relations."""

    def __init__(self, traced: fx.GraphModule):
        super().__init__(traced)
        self.extra_traceback = False  # errors stay one sentence
        self.labels: dict[fx.Node, Any] = {}  # a label tensor, a tuple of them, or a plain value
        self.relations: list[Relation] = []
        self.num_labels = CONSTANT + 1
        self.calls = Counter(n.target for n in traced.graph.nodes if n.op == "call_module")

    def run_node(self, n: fx.Node) -> Any:
        real = super().run_node(n)
        try:
            self.labels[n] = self._labels_of(n, real)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{_described(n, self.module)}: {error}") from error
        return real

    def _labels_of(self, node: fx.Node, real: Any) -> Any:
        if node.op == "placeholder":
            return self._source(node, real)
        if node.op == "output":
            return self._output(node)
        reads_labels = any(is_tensors(self.labels[n]) for n in node.all_input_nodes)
        if not is_tensors(real) or not reads_labels:
            return _constant(real)
        return self._rule(node)(node, real)

    def _rule(self, node: fx.Node) -> Callable[[fx.Node, Any], Any]:
        name, module = operation_name(node, self.module), self._module(node)
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            return self._filters
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm):
            return self._norm
        if name == "pixelshuffle":
            return self._pixel_shuffle
        if name == "pad" and node.kwargs.get("mode", "constant") != "constant":
            return self._carrier
        table = {
            MOVEMENTS: self._movement,
            CARRIERS: self._carrier,
            CONSTANTS: self._constants,
            SUMS: self._sum,
            PRODUCTS: self._product,
            QUOTIENTS: self._quotient,
            REDUCTIONS: self._reduction,
            SOFTMAXES: self._softmax,
            MIXERS: self._whole,
        }
        for names, rule in table.items():
            if name in names:
                return rule
        raise ValueError("the channel graph cannot follow this operation")

    # One method per class of operation: (node, real output) -> labels of the output.

    def _source(self, node: fx.Node, real: Tensor) -> Tensor:
        outputs = self._record(Source, node, real.size(1))
        return _along(outputs, 1, real.shape)

    def _output(self, node: fx.Node) -> Any:
        for source in node.all_input_nodes:
            if is_tensors(self.labels[source]):
                self._record(Output, node, 0, inputs=_distinct(self.labels[source])[0])
        return None

    def _filters(self, node: fx.Node, real: Tensor) -> Tensor:
        module = self._module(node)
        dim = real.dim() - 1 if isinstance(module, nn.Linear) else 1
        inputs = self._vector(node, dim)
        groups = getattr(module, "groups", 1)
        outputs = self._record(
            Filters, node, real.size(dim), module=str(node.target), inputs=inputs, groups=groups
        )
        return _along(outputs, dim, real.shape)

    def _norm(self, node: fx.Node, real: Tensor) -> Tensor:
        module = self._module(node)
        layer = isinstance(module, nn.LayerNorm)
        if layer and len(module.normalized_shape) > 1:
            raise ValueError("a layer norm over several dimensions")
        dim = real.dim() - 1 if layer else 1
        groups = 1 if layer else getattr(module, "num_groups", real.size(dim))
        inputs = self._vector(node, dim)
        shared = self.calls[node.target] > 1  # one scale and shift for several sets of channels
        if shared or not _is_maskable(module):
            outputs = self._record(Whole, node, len(inputs), inputs=inputs)
        else:
            outputs = self._record(
                Norm, node, len(inputs), module=str(node.target), inputs=inputs, groups=groups
            )
        return _along(outputs, dim, real.shape)

    def _movement(self, node: fx.Node, real: Any) -> Any:
        args = fx.node.map_arg(node.args, self.labels.__getitem__)
        kwargs = fx.node.map_arg(node.kwargs, self.labels.__getitem__)
        moved = run_movement(node, self.module, args, kwargs)
        return fx.node.map_aggregate(
            moved, lambda x: _without_borders(compressed(x)) if isinstance(x, Tensor) else x
        )

    def _pixel_shuffle(self, node: fx.Node, real: Tensor) -> Tensor:
        blocks = self._vector(node, 1).reshape(real.size(1), -1)
        return _along(self._record(Blocks, node, len(blocks), inputs=blocks), 1, real.shape)

    def _carrier(self, node: fx.Node, real: Tensor) -> Tensor:
        labels = self._first(node)
        if labels.shape == real.shape:
            return labels
        found = axis_vector(labels)
        if found is None or labels.dim() != real.dim():
            raise ValueError("pools positions that belong to different channels")
        return _along(found[1], found[0], real.shape)

    def _reduction(self, node: fx.Node, real: Tensor) -> Tensor:
        labels = self._first(node)
        reduced = _reduced_dims(node, labels.dim())
        keepdim = real.dim() == labels.dim()
        kept = [d for d in range(labels.dim()) if d not in reduced]
        rows = labels.permute(*reduced, *kept).reshape(-1, *(labels.size(d) for d in kept))
        if torch.equal(rows, rows[:1].expand_as(rows)):  # the same channel wherever it sums
            result = rows[0]
        elif axis_vector(labels) is not None:
            return self._whole(node, real)
        else:
            return self._combined(node, [row.reshape(real.shape) for row in rows], real, "any")
        return compressed(result.reshape(real.shape) if keepdim else result)

    def _constants(self, node: fx.Node, real: Tensor) -> Tensor:
        inputs, where = _distinct(self._first(node))
        outputs = self._record(Constants, node, len(inputs), inputs=inputs)
        return compressed(outputs[where])

    def _softmax(self, node: fx.Node, real: Tensor) -> Tensor:
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        dim = getattr(self._module(node), "dim", 1) if dim is None else dim
        if self._first(node).stride(dim) == 0:
            return self._constants(node, real)
        return self._whole(node, real)

    def _whole(self, node: fx.Node, real: Tensor) -> Tensor:
        inputs, _ = _distinct(self._first(node))
        outputs = self._record(Whole, node, 1, inputs=inputs)
        return outputs.reshape([1] * real.dim()).expand(real.shape)

    def _sum(self, node: fx.Node, real: Tensor) -> Tensor:
        operands = self._operands(node)
        if len(operands) == 1:
            return self._constants(node, real)
        return self._combined(node, operands, real, "any")

    def _product(self, node: fx.Node, real: Tensor) -> Tensor:
        operands = self._operands(node)
        if len(operands) == 1:
            return operands[0].expand(real.shape)
        return self._combined(node, operands, real, "all")

    def _quotient(self, node: fx.Node, real: Tensor) -> Tensor:
        if not isinstance(node.args[0], fx.Node):
            return self._constants(node, real)
        operands = self._operands(node)
        if len(operands) == 1:
            return operands[0].expand(real.shape)
        return self._combined(node, operands, real, "first")

    def _combined(self, node: fx.Node, operands: list[Tensor], real: Tensor, mode: str) -> Tensor:
        """Give every distinct combination of operand labels one fresh label."""
        full = [labels.expand(real.shape) for labels in operands]
        varies = [any(x.stride(d) for x in full) for d in range(real.dim())]
        small = [x[tuple(slice(None if v else 1) for v in varies)] for x in full]
        rows = torch.stack([x.reshape(-1) for x in small], 1)
        table, where = rows.unique(dim=0, return_inverse=True)
        outputs = self._record(Combined, node, len(table), inputs=table, mode=mode)
        return outputs[where].reshape(small[0].shape).expand(real.shape)

    def _record(self, kind: type[Relation], node: fx.Node, count: int, **fields: Any) -> Tensor:
        outputs = torch.arange(self.num_labels, self.num_labels + count)
        self.num_labels += count
        self.relations.append(kind(node.name, outputs, **fields))
        return outputs

    def _first(self, node: fx.Node) -> Tensor:
        return self.labels[node.all_input_nodes[0]]

    def _vector(self, node: fx.Node, dim: int) -> Tensor:
        """Return the labels [C] that the node reads along `dim`."""
        labels = self._first(node)
        found = axis_vector(labels)
        if found is None or (found[0] != dim and labels.stride(found[0]) != 0):
            raise ValueError(f"its input's channels do not lie along dimension {dim}")
        return labels.movedim(dim, 0).flatten(1)[:, 0]

    def _operands(self, node: fx.Node) -> list[Tensor]:
        values = [self.labels[a] if isinstance(a, fx.Node) else a for a in node.args[:2]]
        return [value for value in values if isinstance(value, Tensor)]

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _constant(value: Any) -> Any:
    """Label a tensor that no channel reaches; leave plain values alone."""
    return fx.node.map_aggregate(
        value, lambda x: torch.tensor(CONSTANT).expand(x.shape) if isinstance(x, Tensor) else x
    )


def _along(vector: Tensor, dim: int, shape: torch.Size) -> Tensor:
    """Spread a vector over a shape, along `dim`, without memory."""
    if len(vector) != shape[dim]:
        raise ValueError(f"{len(vector)} channels turned into {shape[dim]}")
    return vector.reshape([-1 if d == dim else 1 for d in range(len(shape))]).expand(shape)


def _without_borders(labels: Tensor) -> Tensor:
    """Give zeros padded around a channel's map that channel's label: both vanish together."""
    if labels.dim() < 3 or axis_vector(labels) is not None:
        return labels
    vector = labels[:1].flatten(2).amax(2)  # [1, C]
    spread = vector.reshape(1, -1, *[1] * (labels.dim() - 2)).expand_as(labels)
    bordered = torch.equal(torch.where(labels == ZERO, spread, labels), spread)
    return spread if bordered else labels


def _is_maskable(norm: nn.Module) -> bool:
    """True if masking can make the norm give zero for zero: a scale and shift, or no mean."""
    instance = isinstance(norm, nn.modules.instancenorm._InstanceNorm)
    return norm.weight is not None or instance and not norm.track_running_stats


def _distinct(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return (labels that occur [K], where: index into them, of the labels' shape)."""
    small = labels[tuple(slice(None if labels.stride(d) else 1) for d in range(labels.dim()))]
    found, where = small.unique(return_inverse=True)
    return found, where.expand(labels.shape)


def _reduced_dims(node: fx.Node, num_dims: int) -> list[int]:
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else range(num_dims))
    dims = [dims] if isinstance(dims, int) else list(dims)
    return [d % num_dims for d in dims]


def is_tensors(value: Any) -> bool:
    """True for a tensor, and for a tuple or list that holds one."""
    if isinstance(value, tuple | list):
        return any(isinstance(item, Tensor) for item in value)
    return isinstance(value, Tensor)


def _described(node: fx.Node, root: nn.Module) -> str:
    path = owner(node)
    inside = f" in {path!r}" if path else ""
    return f"node {node.name!r} ({node.op} {operation_name(node, root)}{inside})"
