"""Operations place by place, and sums over places: what zeros become is found out by trying."""

from typing import Any

import torch
from torch import Tensor

from utils.graph.labels import axis_vector, compressed, everywhere, narrowed, opened, varying
from utils.graph.relations import (
    CONSTANT,
    FIRST_CHANNEL,
    FIXED,
    Combined,
    Summed,
    Tied,
    Unmasked,
    Whole,
)
from utils.graph.values import Value, live, mapped, tensors_in

Part = tuple[Tensor, torch.Size, bool]  # labels, the operand's own shape, is it a parameter?
_SOME = (1.5, -0.75, 2.25, -3.0)


def labelled_like(call: Any, value: Value, tensor: Tensor) -> Tensor:
    """Return one plane of labels; parameters that have several stay whole."""
    if len(value.planes) > 1:
        for plane in value.planes:
            call.run.stays(narrowed(plane).flatten(), call.name)
        return everywhere(CONSTANT, tensor.shape)
    return value.plane(tensor.shape)


def combined(call: Any, parts: list[Part], shape: torch.Size, mode: str) -> Tensor:
    """Return fresh labels, one for every distinct combination of the parts' labels."""
    full = [labels.expand(shape) for labels, _, _ in parts]
    dims = sorted({d for labels in full for d in varying(labels)})
    picked = tuple(slice(None) if d in dims else slice(1) for d in range(len(shape)))
    columns, spans = [], []
    for labels, (_, own, _) in zip(full, parts, strict=True):
        sizes = [own[d - len(shape)] if d - len(shape) >= -len(own) else 1 for d in dims]
        column = opened(labels)[picked].reshape(-1)
        if not varying(labels) and len(column) and int(column[0]) == CONSTANT:
            column = torch.full_like(column, FIXED) if any(n > 1 for n in sizes) else column
            spans.append(any(n > 1 for n in sizes))
        else:
            spans.append(all(n > 1 for n in sizes))
        columns.append(column)
    if not len(columns[0]):
        return everywhere(CONSTANT, shape)
    where = columns[0]
    for column in columns[1:]:
        _, where = where.unique(return_inverse=True)
        where = where * call.run.parameters.num_labels + column
    _, where = where.unique(return_inverse=True)
    table = torch.empty(int(where.max()) + 1, len(columns), dtype=torch.long)
    table[where] = torch.stack(columns, 1)
    outputs = call.run.record(
        Combined,
        call.run.node(call.name),
        len(table),
        inputs=table,
        mode=mode,
        spans=tuple(spans),
        parameters=tuple(flag for _, _, flag in parts),
    )
    small = outputs[where].reshape([n if d in dims else 1 for d, n in enumerate(shape)])
    return small.expand(shape)


def steered(call: Any, labels: Tensor, others: list[Value], mode: str = "first") -> Tensor:
    """Return labels of the same channels, at places or with weights that `others` decide."""
    decide = [narrowed(plane).flatten() for value in others for plane in value.planes]
    rest = torch.cat([labels.new_empty(0), *decide]).unique()
    rest = rest[rest >= FIRST_CHANNEL]
    if len(rest) > 1:
        rest = call.run.record(Whole, call.run.node(call.name), 1, inputs=rest[None], barrier=True)
    one = torch.Size([1] * labels.dim())
    parts = [(labels, labels.shape, False), *((everywhere(x, one), one, False) for x in rest)]
    if len(parts) == 1 and mode == "first":
        return labels
    return combined(call, parts, labels.shape, mode)


def elementwise(call: Any, found: list[Tensor]) -> list[Value] | None:
    """Follow a function of each place of its operands."""
    out = found[0]
    if any(_too_large(tensor, out) for tensor, _ in call.operands):
        return None
    mode, first = _tried(call)
    operands = list(call.operands)
    if first:
        operands.insert(0, operands.pop(first))
    if any(value.live for _, value in operands):
        return [live(_met(call, operands, out.shape, mode))] * len(found)
    return [_parameters_met(call, operands, out.shape, mode)] * len(found)


def _too_large(tensor: Tensor, out: Tensor) -> bool:
    try:
        return torch.broadcast_shapes(tensor.shape, out.shape) != out.shape
    except RuntimeError:
        return True


def _met(call: Any, operands: list[tuple[Tensor, Value]], shape: torch.Size, mode: str) -> Tensor:
    """Return the labels of what activations, parameters and constants are made into."""
    dims = {
        d - len(plane.shape)
        for _, value in operands
        if value.live
        for plane in value.planes
        for d in varying(plane)
    }
    parts = [_part(call, tensor, value, dims, mode) for tensor, value in operands]
    told = [part for part in parts if _matters(part, dims)]
    if len(told) == 1:
        labels, own, _ = told[0]
        kills = mode == "all" or mode == "first" and (told[0] is parts[0] or len(parts) == 1)
        if kills or len(parts) == 1 and mode == "any":
            return compressed(labels.expand(shape))
        return combined(call, [(labels, own, False)], shape, "never")
    return combined(call, parts, shape, mode)


def _matters(part: Part, dims: set[int]) -> bool:
    """True unless the part is a constant that is broadcast over all channels."""
    labels, own, _ = part
    if varying(labels) or labels.numel() and int(narrowed(labels).flatten()[0]) != CONSTANT:
        return True
    return any(d >= -len(own) and own[d] > 1 for d in dims)


def _part(call: Any, tensor: Tensor, value: Value, dims: set[int], mode: str) -> Part:
    if value.live or not value.planes:
        return value.plane(tensor.shape), tensor.shape, False
    matched = [p for p in value.planes if {d - p.dim() for d in varying(p)} <= dims]
    if len(matched) > 1:
        matched = []
    for plane in value.planes:
        if not any(plane is p for p in matched):
            call.run.stays(narrowed(plane).flatten(), call.name)
    if not matched:
        return everywhere(CONSTANT, tensor.shape), tensor.shape, False
    rows = axis_vector(matched[0])
    maskable = rows is not None and mode != "never"
    if not maskable or not call.run.parameters.mask_rows(value.zeroing, rows[1]):
        labels = narrowed(matched[0]).flatten().unique()
        call.run.run.relations.append(Unmasked(call.name, labels[labels >= FIRST_CHANNEL]))
    return matched[0], tensor.shape, True


def _parameters_met(
    call: Any, operands: list[tuple[Tensor, Value]], shape: torch.Size, mode: str
) -> Value:
    """Return the planes of what parameters alone are made into; what meets in them is tied."""
    planes: list[Tensor] = []
    for tensor, value in operands:
        if tensor.dim() > len(shape):
            continue
        for plane in value.planes:
            _add_plane(call, planes, plane.expand(shape))
    for plane in planes:
        for tensor, value in operands:
            dims = [d - len(shape) for d in varying(plane)]
            sized = any(d >= -tensor.dim() and tensor.shape[d] > 1 for d in dims)
            if sized and not any({*dims} & {d - p.dim() for d in varying(p)} for p in value.planes):
                call.run.stays(narrowed(plane).flatten(), call.name)
    zeroing = [value.zeroing for _, value in operands]
    given = [names for names in zeroing if names is not None]
    if mode == "any":
        rows = frozenset().union(*given) if len(given) == len(zeroing) else None
    elif mode == "all":
        trained = [names for names in given if call.run.parameters.trained(names)]
        rows = next(iter(trained + given), None)
    else:
        rows = zeroing[0] if mode == "first" else None
    return Value(tuple(planes), False, rows)


def _add_plane(call: Any, planes: list[Tensor], plane: Tensor) -> None:
    for other in planes:
        if varying(other) == varying(plane):
            pairs = torch.stack([narrowed(other).flatten(), narrowed(plane).flatten()], 1)
            pairs = pairs[(pairs >= FIRST_CHANNEL).all(1) & (pairs[:, 0] != pairs[:, 1])]
            if len(pairs):
                tie = Tied(call.name, torch.empty(0, dtype=torch.long), pairs)
                call.run.run.relations.append(tie)
                call.run.parameters.ties.append(tie)
            return
        if set(varying(other)) & set(varying(plane)):
            for either in (other, plane):
                call.run.stays(narrowed(either).flatten(), call.name)
            return
    planes.append(plane)


_MODES: dict[Any, tuple[str, int]] = {}


def _tried(call: Any) -> tuple[str, int]:
    """Return (what zeros do to the function, which operand's zeros do it) by calling it."""
    rest = mapped((call.args, call.kwargs), lambda t: (t.dtype, t.dim() > 0))
    key = call.func, repr(rest)
    if key not in _MODES:
        if len(_MODES) > 10000:
            _MODES.clear()
        _MODES[key] = _try(call)
    return _MODES[key]


def _try(call: Any) -> tuple[str, int]:
    count = len(call.operands)
    try:
        alone = [_gives_zero(call, {k}) for k in range(count)] if count > 1 else []
        together = _gives_zero(call, set(range(count)))
    except (RuntimeError, TypeError, ValueError, IndexError):
        return "never", 0
    if count == 1:
        return ("all" if together else "never"), 0
    if all(alone):
        return "all", 0
    if any(alone):
        return "first", alone.index(True)
    return ("any" if together else "never"), 0


def _gives_zero(call: Any, zeros: set[int]) -> bool:
    """Call the function on a few numbers, with zeros for some operands: is the result zero?"""
    places = iter(range(len(call.operands)))

    def few(tensor: Tensor) -> Tensor:
        place = next(places)
        numbers = [0.0] * 4 if place in zeros else list(_SOME[place % 4 :] + _SOME[: place % 4])
        if tensor.dtype == torch.bool:
            return torch.tensor([n > 0 for n in numbers])
        dtype = tensor.dtype if tensor.is_complex() else torch.float64
        return torch.tensor(numbers, dtype=dtype if tensor.is_floating_point() else torch.long)

    args, kwargs = mapped((call.args, call.kwargs), few)
    kwargs = {key: value for key, value in kwargs.items() if key not in ("out", "dtype")}
    with torch.random.fork_rng(devices=[]):
        results = list(tensors_in(call.func(*args, **kwargs)))
    return bool(results) and not any(bool(result.any()) for result in results)


# --- sums over places ---


def reduced(
    call: Any, tensor: Tensor, value: Value, dims: list[int], found: list[Tensor]
) -> list[Value]:
    """Follow a reduction over dimensions: of one channel, or over channels."""
    zero, droppable = _tried_reduction(call, tensor, dims)
    if not value.live:
        planes = []
        for plane in value.planes:
            if set(varying(plane)) & set(dims):
                call.run.stays(narrowed(plane).flatten(), call.name)
            else:
                planes.append(_without(plane, dims, found[0]))
        return [Value(tuple(planes), False, value.zeroing if zero else None)] * len(found)
    labels = value.planes[0]
    if not set(varying(labels)) & set(dims):
        if not zero:
            labels = combined(call, [(labels, labels.shape, False)], labels.shape, "never")
        return [live(_without(labels, dims, out)) for out in found]
    kept = [d for d in range(labels.dim()) if d not in dims]
    rows = (
        narrowed(labels)
        .permute(*kept, *dims)
        .reshape(*[narrowed(labels).size(d) for d in kept], -1)
    )
    flat = rows.reshape(-1, rows.size(-1))
    node = call.run.node(call.name)
    if len(flat) > 1:
        size = flat.size(1)
        fields = {"spans": (True,) * size, "parameters": (False,) * size}
        mode = "any" if zero else "never"
        outputs = call.run.record(Combined, node, len(flat), inputs=flat, mode=mode, **fields)
    else:
        kind = Summed if droppable else Whole
        outputs = call.run.record(kind, node, len(flat), inputs=flat)
    small = outputs.reshape(rows.shape[:-1])
    for d in sorted(dims):
        small = small.unsqueeze(d)
    spread = compressed(
        small.expand([1 if d in dims else labels.size(d) for d in range(labels.dim())])
    )
    return [live(_without(spread, dims, out)) for out in found]


def _without(labels: Tensor, dims: list[int], out: Tensor) -> Tensor:
    for d in dims:
        labels = labels.narrow(d, 0, 1)
    if out.dim() < labels.dim():
        for d in sorted(dims, reverse=True):
            labels = labels.squeeze(d)
    return labels.expand(out.shape) if labels.shape != out.shape else labels


def _tried_reduction(call: Any, tensor: Tensor, dims: list[int]) -> tuple[bool, bool]:
    """Return (does it make zero of zeros, does it pass over zeros) by calling it."""

    def value(numbers: Tensor) -> list[Tensor]:
        swap = lambda t: numbers if t is tensor else t  # noqa: E731
        args, kwargs = mapped((call.args, call.kwargs), swap)
        kwargs = {key: value for key, value in kwargs.items() if key not in ("out", "dtype")}
        return list(tensors_in(call.func(*args, **kwargs)))

    shape = [2] * tensor.dim()
    some = torch.linspace(0.5, 1.5, 2 ** tensor.dim(), dtype=torch.float64).reshape(shape)
    try:
        zero = all(not bool(t.any()) for t in value(torch.zeros_like(some)))
        longer = torch.nn.functional.pad(
            some, [n for d in reversed(range(tensor.dim())) for n in (0, int(d in dims))]
        )
        pairs = zip(value(some), value(longer), strict=True)
        return zero, all(torch.allclose(a.double(), b.double()) for a, b in pairs)
    except (RuntimeError, TypeError, IndexError, ValueError):
        return False, False
