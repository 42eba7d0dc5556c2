"""Data movement: run on the labels themselves, by the same call."""

from typing import Any

import torch
from torch import Tensor

from utils.graph import operations as names
from utils.graph.elementwise import combined, labelled_like
from utils.graph.labels import compressed, everywhere, narrowed, varying, without_borders
from utils.graph.relations import CONSTANT, ZERO
from utils.graph.values import Value, live, mapped, tensors_in


def movement(call: Any, found: list[Tensor]) -> list[Value] | None:
    """Follow data movement, None if which places it takes depends on the image."""
    data = data_of(call.name, call.args, call.kwargs)
    others = [v for t, v in call.operands if all(t is not d for d in data)]
    if any(value.live and value.planes and _places(call) for value in others):
        return None  # which places it takes depends on the image
    values = [call.value(tensor) for tensor in data]
    call.moves = True
    if any(value.live for value in values):
        planes = [labelled_like(call, v, t) for v, t in zip(values, data, strict=True)]
        if len(data) > 1:
            joined = _aligned_along_join(call, planes, data)
            call.moves, planes = joined is planes, joined
        return [live(tidy(p)) for p in move(call.name, call.func, call.args, call.kwargs, planes)]
    return _moved_parameters(call, data, values, found)


def _places(call: Any) -> bool:
    return call.name not in ("viewas", "expandas", "reshapeas")


def _moved_parameters(
    call: Any, data: list[Tensor], values: list[Value], found: list[Tensor]
) -> list[Value] | None:
    if len(values) > 1 and any(len(value.planes) > 1 for value in values):
        return None
    count = max((len(value.planes) for value in values), default=0)
    if count == 0:
        return [Value()] * len(found)
    zeroing = [value.zeroing for value in values]
    names_ = None if None in zeroing else frozenset().union(*zeroing)
    planes: list[list[Tensor]] = [[] for _ in found]
    for k in range(count):
        given = [
            v.planes[k] if k < len(v.planes) else everywhere(CONSTANT, t.shape)
            for v, t in zip(values, data, strict=True)
        ]
        moved = move(call.name, call.func, call.args, call.kwargs, given)
        for group, plane in zip(planes, moved, strict=True):
            plane = compressed(plane)
            if len(varying(plane)) == 1:
                group.append(plane)
            else:  # a single one, which is called by its place, or two dimensions in one
                kept = [plane] if varying(plane) else given
                call.run.stays(torch.cat([narrowed(p).flatten() for p in kept]), call.name)
    return [Value(tuple(group), False, names_) for group in planes]


def data_of(name: str, args: Any, kwargs: Any) -> list[Tensor]:
    """Return the tensors whose elements a movement moves; others say where to."""
    if name in names.JOINS:
        return list(tensors_in(args[0] if args else kwargs["tensors"]))
    return list(tensors_in((args, kwargs)))[:1]


def move(name: str, func: Any, args: Any, kwargs: Any, planes: list[Tensor]) -> list[Tensor]:
    """Return what the movement makes of labels that stand in for its data."""
    kwargs = {key: value for key, value in kwargs.items() if key != "out"}
    if name in names.JOINS:
        return [_join(name, func, args, kwargs, planes)]
    (labels,) = planes
    labels = labels.view_as(labels)  # another tensor: `squeeze_` changes the one it is given
    if name in ("viewas", "reshapeas"):
        return [labels.reshape((args[1] if len(args) > 1 else kwargs["other"]).shape)]
    if name in ("pad", "constantpadnd"):
        return [_padded(labels, args, kwargs)]
    if name == "view":
        func = torch.Tensor.reshape
    given = iter([labels])
    first = next(tensors_in((args, kwargs)))
    swap = lambda t: next(given, labels) if t is first else t  # noqa: E731
    args, kwargs = mapped(args, swap), mapped(kwargs, swap)
    try:
        return list(tensors_in(func(*args, **kwargs)))
    except (RuntimeError, NotImplementedError) as error:
        if "not implemented for" not in str(error):
            raise
    double = lambda t: t.double() if t is labels else t  # noqa: E731
    return [t.long() for t in tensors_in(func(*mapped(args, double), **mapped(kwargs, double)))]


def _join(name: str, func: Any, args: Any, kwargs: Any, planes: list[Tensor]) -> Tensor:
    """Join labels; what varies along no dimension but the joined one is joined once."""
    dims = {plane.dim() for plane in planes}
    thin = []
    if name in ("cat", "concat", "concatenate") and len(dims) == 1:
        dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
        count = dims.pop()
        thin = [
            d
            for d in range(count)
            if d != dim % count and not any(p.size(d) > 1 and p.stride(d) for p in planes)
        ]
    shape = [planes[0].size(d) for d in range(planes[0].dim())]
    small = planes
    for d in thin:
        small = [plane.narrow(d, 0, 1) if plane.size(d) else plane for plane in small]
    keywords = {key: value for key, value in kwargs.items() if key != "tensors"}
    joined = func(small, *args[1:], **keywords)
    return joined.expand([shape[d] if d in thin else n for d, n in enumerate(joined.shape)])


def _padded(labels: Tensor, args: Any, kwargs: Any) -> Tensor:
    value = kwargs.get("value", args[3] if len(args) > 3 else 0)
    sizes = kwargs["pad"] if "pad" in kwargs else args[1]
    return torch.nn.functional.pad(labels, list(sizes), value=CONSTANT if value else ZERO)


def tidy(labels: Tensor) -> Tensor:
    """Return labels compressed, without the borders that padding made."""
    return without_borders(compressed(labels))


def _aligned_along_join(call: Any, planes: list[Tensor], data: list[Tensor]) -> list[Tensor]:
    """Give values that are joined beside their channels' dimension the same channels."""
    name = call.name
    if name == "stack":
        planes_all = planes
    elif name in ("cat", "concat", "concatenate"):
        dim = call.argument(1, "dim", "axis", default=0) % planes[0].dim()
        if any(p.dim() != planes[0].dim() for p in planes) or any(
            dim in varying(p) for p in planes
        ):
            return planes
        if all(not varying(p) for p in planes):
            return planes
        kept = [(p, t) for p, t in zip(planes, data, strict=True) if p.size(dim)]
        planes_all = [p.narrow(dim, 0, 1) for p, _ in kept]
    else:
        return planes
    if all(torch.equal(p, planes_all[0]) for p in planes_all):
        return planes
    shape = planes_all[0].shape
    flags = [not call.value(t).live and bool(call.value(t).planes) for t in data]
    rows = [(p, t, f) for p, t, f in zip(planes_all, data, flags, strict=False)]
    joined = combined(call, [(p, p.shape, f) for p, _, f in rows], shape, "any")
    return [joined.expand_as(p) if name == "stack" else joined.expand(p.shape) for p in planes]
