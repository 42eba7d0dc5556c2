"""What each operation does to channels: one rule for each way of finding it out.

Data movement is run on the labels themselves; elementwise functions are tried on a few numbers;
layers read weights; what nobody knows is tried on some channels, and else is a barrier.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from utils.graph import operations as names
from utils.graph.aligned import is_aligned
from utils.graph.attention import mixed, note_counts
from utils.graph.counted import numbers_in
from utils.graph.elementwise import combined, elementwise, labelled_like, reduced, steered
from utils.graph.labels import (
    along,
    compressed,
    everywhere,
    narrowed,
    opened,
    varying,
    vector_along,
)
from utils.graph.layers import layer
from utils.graph.movements import movement, tidy
from utils.graph.probing import probed
from utils.graph.products import PRODUCTS
from utils.graph.relations import CONSTANT, FIRST_CHANNEL, ZERO, Absent, Whole
from utils.graph.sized import UNIFORM, sized
from utils.graph.values import Value, live, tensors_in


@dataclass(eq=False)
class Call:
    """One call of a torch function: what it was given, what it gave, and the run it is part of."""

    run: Any
    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    operands: tuple[tuple[Tensor, Value], ...]
    writes: bool = False
    moves: bool = False

    def argument(self, place: int, *keywords: str, default: Any = None) -> Any:
        """Return an argument by its place or one of its names."""
        for keyword in keywords:
            if keyword in self.kwargs:
                return self.kwargs[keyword]
        return self.args[place] if len(self.args) > place else default

    def value(self, tensor: Any) -> Value:
        """Return what was known of an operand."""
        for operand, value in self.operands:
            if operand is tensor:
                return value
        return Value()

    def takes_sizes(self) -> bool:
        """True if numbers among the arguments are sizes: they count nothing that is computed."""
        return self.name in _SIZED_BY_NUMBERS

    def is_rigid(self) -> bool:
        """True for a split into sizes that are plain numbers."""
        sizes = self.argument(1, "split_size_or_sections", "split_size", default=None)
        return "split" in self.name and isinstance(sizes, list | tuple) and not numbers_in(sizes)

    def reshapes_in_place(self) -> bool:
        """True for `x.squeeze_()` and its like, which write nothing and change the shape."""
        return self.moves and getattr(self.func, "__name__", "").endswith("_")

    def assigned(self, tensor: Tensor) -> Value | None:
        """Return the value of a tensor that was written to and is not what the call gives."""
        if self.name == "setitem":
            return _set_item(self)
        if self.name in names.LAYERS or self.name in names.FACTS:
            return None
        return barrier(self, [tensor])[0]


_SIZED_BY_NUMBERS = UNIFORM.union(
    names.MOVEMENTS, names.SPATIAL, names.LAYERS, names.REDUCTIONS, names.ALONG, ["affinegrid"]
)
_RANDOM = frozenset("bernoulli uniform normal random exponential randlike randnlike".split())


def values_of(call: Call, found: list[Tensor]) -> list[Value]:
    """Return the values of the tensors that a call gave, noting its relations."""
    if call.name in names.SIZED:
        return [sized(call, tensor) for tensor in found]
    if not found:
        return []
    try:
        gives = _rule(call)(call, found)
    except (Unfollowed, RuntimeError, IndexError, ValueError, TypeError, AttributeError):
        if os.environ.get("GRAPH_DEBUG"):
            raise
        gives = None  # a use of the operation that the rule did not think of
    if gives is None:
        call.moves = False
        return barrier(call, found)
    return gives


class Unfollowed(Exception):
    """A rule finds that it does not fit the values."""


def _rule(call: Call) -> Callable[[Call, list[Tensor]], list[Value] | None]:
    name = call.name
    if name in names.LAYERS:
        return layer
    if name in PRODUCTS:
        return PRODUCTS[name]
    if name == "pad" and call.argument(2, "mode", default="constant") != "constant":
        return _spatial
    if name in ("max", "min") and len(call.operands) == 1:
        return _reduction
    tables = (
        (names.MOVEMENTS, _movement),
        (names.COPIES, _copy),
        (names.ELEMENTWISE, elementwise),
        (names.SPATIAL, _spatial),
        (names.SAMPLED, _sampled),
        (names.REDUCTIONS, _reduction),
        (names.ALONG, _mixed_along),
        (_RANDOM, _random),
        (("copy",), _copied),
        (("indexcopy",), _placed),
        (("glu",), _gated),
    )
    return next((rule for table, rule in tables if name in table), probed)


def barrier(call: Call, found: list[Tensor]) -> list[Value]:
    """Keep whole what an operation that nobody knows reads; what it gives is there, whole."""
    planes = [plane for _, value in call.operands if value.live for plane in value.planes]
    for _, value in call.operands:
        if not value.live:
            for plane in value.planes:
                call.run.stays(narrowed(plane).flatten(), call.name)
    if not planes:
        return [Value()] * len(found)
    inputs = torch.cat([narrowed(plane).flatten() for plane in planes]).unique()
    inputs = inputs[inputs >= FIRST_CHANNEL]
    if not len(inputs):
        return [live(everywhere(CONSTANT, tensor.shape)) for tensor in found]
    node, mixes = call.run.node(call.name), any(map(varying, planes))
    output = call.run.record(Whole, node, 1, inputs=inputs[None], barrier=mixes)
    return [live(everywhere(output, tensor.shape)) for tensor in found]


def _movement(call: Call, found: list[Tensor]) -> list[Value] | None:
    """Data movement, or a choice of places that depends on the image."""
    moved = movement(call, found)
    if moved is None:
        return probed(call, found)
    note_counts(call, moved)
    return moved


def _set_item(call: Call) -> Value:
    """Return the value of x after `x[index] = y`."""
    target, index, given = call.args
    value = call.value(target)
    if any(call.value(t).planes for t in tensors_in(index)):
        return _set_somewhere(call, target, index, given) or barrier(call, [target])[0]
    labels = labelled_like(call, value, target).clone(memory_format=torch.contiguous_format)
    if isinstance(given, Tensor):
        source = labelled_like(call, call.value(given), given)
    else:
        source = torch.tensor(ZERO if given == 0 else CONSTANT)
    labels[index] = source
    return live(tidy(labels))


def _set_somewhere(call: Call, target: Tensor, index: Any, given: Any) -> Value | None:
    """Return the value of x after `x[index] = y`, if no channel lies along what the index counts.

    Then each channel of x is one of y at some places, as numbers of no channel decide.
    """
    if not isinstance(index, Tensor):
        return None
    labels, where = labelled_like(call, call.value(target), target), [call.value(index)]
    count = index.dim() if index.dtype == torch.bool else 1
    if any(dim < count for dim in varying(labels)):
        return None
    if not isinstance(given, Tensor):
        return live(steered(call, labels, where, "never" if given else "first"))
    lead = given.dim() - (target.dim() - count)
    source = opened(labelled_like(call, call.value(given), given))
    if any(dim < lead for dim in varying(source)) or not source.numel():
        return None
    source = source[(0,) * max(lead, 0)]
    both = [(labels, labels.shape, False), (source, source.shape, False)]
    return live(steered(call, combined(call, both, labels.shape, "any"), where))


def _copy(call: Call, found: list[Tensor]) -> list[Value]:
    value = call.operands[0][1]
    return [Value(value.planes, value.live, value.zeroing)] * len(found)


def _copied(call: Call, found: list[Tensor]) -> list[Value]:
    """x.copy_(y): x holds what y holds."""
    source = call.argument(1, "src", "other")
    value = call.value(source)
    if not value.live and len(value.planes) > 1:
        return [Value(value.planes, False, value.zeroing)]
    labels = labelled_like(call, value, source)
    return [live(compressed(labels.expand(found[0].shape)))]


def _placed(call: Call, found: list[Tensor]) -> list[Value] | None:
    """x.index_copy(dim, places, y): y at those places of x, which an aligned layer leaves zero."""
    dim, places, given = (call.argument(k, n) for k, n in enumerate(("dim", "index", "source"), 1))
    if call.value(places).planes:
        return None
    target = call.args[0]
    labels = labelled_like(call, call.value(target), target)
    if is_aligned(call.run.parameters.modules[call.run.sites.path]):
        absent = call.run.record(Absent, call.name, target.size(dim))
        labels = along(absent, dim % target.dim(), target.shape)
    source = labelled_like(call, call.value(given), given)
    return [live(tidy(labels.index_copy(dim, places.cpu(), source)))]


def _random(call: Call, found: list[Tensor]) -> list[Value]:
    value = call.operands[0][1]
    if not value.live:
        return [Value()] * len(found)
    tensor = call.operands[0][0]
    return [live(combined(call, [(value.planes[0], tensor.shape, False)], tensor.shape, "never"))]


def _gated(call: Call, found: list[Tensor]) -> list[Value] | None:
    """glu: the first half times a sigmoid of the second."""
    tensor, value = call.operands[0]
    if not value.live:
        return None
    halves = value.planes[0].chunk(2, call.argument(1, "dim", default=-1))
    shape = halves[0].shape
    parts = [(compressed(half), shape, False) for half in halves]
    return [live(combined(call, parts, shape, "first"))]


# --- operations along dimensions ---


def _spatial(call: Call, found: list[Tensor]) -> list[Value] | None:
    """Pooling and resizing: other places of the same channels, unless these lie along them."""
    live_operands = [(t, v) for t, v in call.operands if v.live and v.planes]
    if not live_operands or len(live_operands) != sum(bool(v.planes) for _, v in call.operands):
        return None
    tensor, value = live_operands[0]
    count = names.SPATIAL.get(call.name, 0)
    if call.name == "pad":
        count = len(call.argument(1, "pad")) // 2
    count = tensor.dim() - 2 if count < 0 else count
    labels = value.planes[0]
    if any(d >= tensor.dim() - count for d in varying(labels)):
        return None
    if len(live_operands) > 1:
        rest = [(_first_place(v.planes[0], count), t, False) for t, v in live_operands]
        shapes = [(p, p.shape, f) for p, _, f in rest]
        labels = combined(call, shapes, shapes[0][1], "any")
    return [live(_respread(labels, count, out)) for out in found]


def _sampled(call: Call, found: list[Tensor]) -> list[Value] | None:
    """The first operand's channels [N, C, ...] at places that the others name: boxes, a grid."""
    (_, value), *rest = call.operands
    if not value.live or varying(value.planes[0]) != [1]:
        return None
    labels = steered(call, value.planes[0], [other for _, other in rest])
    return [live(along(vector_along(labels, 1), 1, out.shape)) for out in found]


def _first_place(labels: Tensor, count: int) -> Tensor:
    for d in range(labels.dim() - count, labels.dim()):
        labels = labels.narrow(d, 0, 1)
    return labels


def _respread(labels: Tensor, count: int, out: Tensor) -> Tensor:
    if labels.dim() != out.dim():
        raise Unfollowed
    small = _first_place(labels, count)
    return small.expand([*labels.shape[: labels.dim() - count], *out.shape[out.dim() - count :]])


def _dims(call: Call, place: int, num_dims: int, default: Any = None) -> list[int]:
    dims = call.argument(place, "dim", "axis", default=default)
    if dims is None or isinstance(dims, str) or dims == ():
        dims = range(num_dims)
    dims = [dims] if isinstance(dims, int) else list(dims)
    return [d % num_dims for d in dims] if num_dims else []


def _reduction(call: Call, found: list[Tensor]) -> list[Value] | None:
    tensor, value = call.operands[0]
    place = names.REDUCTIONS.get(call.name, 1)
    if len([v for _, v in call.operands if v.planes]) > 1:
        return None
    dims = _dims(call, place, tensor.dim())
    if call.name in ("median", "mode") and not call.args[1:] and "dim" not in call.kwargs:
        dims = list(range(tensor.dim()))
    return reduced(call, tensor, value, dims, found)


def _mixed_along(call: Call, found: list[Tensor]) -> list[Value] | None:
    """softmax and its like: the shape stays, and every line along a dimension is mixed."""
    tensor, value = call.operands[0]
    if not value.live or len([v for _, v in call.operands if v.planes]) > 1:
        return None
    place, default = names.ALONG[call.name]
    (dim,) = _dims(call, place, tensor.dim(), default)[:1]
    labels = value.planes[0]
    if dim not in varying(labels):
        return [live(_per_channel(call, labels, out)) for out in found]
    in_heads = call.name == "normalize" and len(varying(labels)) == 2
    spread = mixed(call, labels, dim, in_heads=in_heads)
    return [live(spread.expand(out.shape)) for out in found]


def _per_channel(call: Call, labels: Tensor, out: Tensor) -> Tensor:
    """Return labels of what each channel alone is made into; is zero made of zeros?"""
    keywords = {k: v for k, v in call.kwargs.items() if k not in ("out", "dtype")}
    try:
        tried = call.func(
            torch.zeros(2, 2, 2, 2)[(...,) + (0,) * (4 - out.dim())], *call.args[1:], **keywords
        )
        zero = all(not bool(t.any()) for t in tensors_in(tried))
    except (RuntimeError, TypeError, IndexError):
        zero = False
    if zero:
        return labels
    return combined(call, [(labels, labels.shape, False)], labels.shape, "never")
