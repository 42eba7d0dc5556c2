"""Layers: whatever reads a weight, a module's own or one made of parameters on the way."""

from typing import Any

import torch
from torch import Tensor

from utils.graph.elementwise import combined, steered
from utils.graph.labels import along, everywhere, narrowed, varying, vector_along
from utils.graph.norms import batch_norm, group_norm, layer_norm
from utils.graph.relations import (
    FIRST_CHANNEL,
    Filters,
    Tied,
    Unmasked,
    Whole,
)
from utils.graph.values import Value, live
from utils.graph.weights import axis_labels, is_leaf, read_labels

_NONE = torch.empty(0, dtype=torch.long)


def layer(call: Any, found: list[Tensor]) -> list[Value] | None:
    """Follow a function that reads a weight, None if it is used in a way that nobody knows."""
    kind = {
        "linear": _linear,
        "deformconv2d": _deform_conv,
        "prelu": _prelu,
        "batchnorm": batch_norm,
        "instancenorm": batch_norm,
        "groupnorm": group_norm,
        "layernorm": layer_norm,
        "rmsnorm": layer_norm,
        "weightnorm": _weight_norm,
    }.get(call.name, _conv)
    return kind(call, found[0])


def _conv(call: Any, out: Tensor) -> list[Value] | None:
    features = call.argument(0, "input")
    weight, bias = call.argument(1, "weight"), call.argument(2, "bias")
    groups = int(call.argument(6, "groups", default=1))
    if features.dim() != weight.dim():
        return None
    depthwise = groups == weight.size(0) and weight.size(1) == 1
    axes = (1, 0) if "transpose" in call.name and not depthwise else (0, 1)
    return filters(call, out, features, weight, bias, ends=(1, 1), axes=axes, groups=groups)


def _deform_conv(call: Any, out: Tensor) -> list[Value] | None:
    """A conv whose places the image decides, the same for all channels, and what they weigh."""
    features, weight, offset, mask, bias = (call.argument(k, "") for k in range(5))
    groups, offset_groups = (int(call.argument(k, "")) for k in (11, 12))
    if offset_groups > 1:
        return None
    bias = None if call.value(bias).live else bias  # zeros, where the layer has none
    found = filters(call, out, features, weight, bias, ends=(1, 1), groups=groups)
    if found is None:
        return None
    decide = [call.value(offset), call.value(mask)]
    return [live(steered(call, found[0].planes[0], [v for v in decide if v.live]))]


def _linear(call: Any, out: Tensor) -> list[Value] | None:
    features, weight = call.argument(0, "input"), call.argument(1, "weight")
    bias, value = call.argument(2, "bias"), call.value(features)
    if value.live and out.dim() > 1:
        dims = varying(value.planes[0])
        if dims and out.dim() - 1 not in dims:
            return _per_place(call, out, value.planes[0], [weight, bias])
    last = out.dim() - 1
    return filters(call, out, features, weight, bias, ends=(last, last))


def _per_place(call: Any, out: Tensor, labels: Tensor, parameters: list[Any]) -> list[Value]:
    """A layer that mixes along other dimensions than that of the channels: its weights stay."""
    for tensor in parameters:
        for plane in call.value(tensor).planes:
            call.run.stays(narrowed(plane).flatten(), call.name)
    shape = torch.Size([*labels.shape[:-1], 1])
    labels = labels.narrow(-1, 0, 1)
    if parameters[-1] is not None:
        labels = combined(call, [(labels, shape, False)], shape, "never")
    return [live(labels.expand(out.shape))]


def filters(
    call: Any,
    out: Tensor,
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    ends: tuple[int, int],
    axes: tuple[int, int] = (0, 1),
    groups: int = 1,
) -> list[Value] | None:
    """Follow a layer with a weight; None if it is used in a way that nobody knows.

    `ends` are the dimensions along which its channels lie, of what it reads and of what it gives;
    `axes` those of the weight along which its filters lie, and the channels that they read.
    """
    weights, (reads, writes), (outer, inner) = call.value(weight), ends, axes
    inputs = read_labels(call, call.value(features), features, reads)
    if inputs is None or weights.live:
        return None
    grouped_rows = outer > inner and groups > 1  # [C_in, C_out / groups, ...]
    if grouped_rows or not weights.planes and weight.numel() > 1 and not is_leaf(weights):
        return _constant_kernel(call, out, inputs, weight, writes, groups)
    rows = axis_labels(call, weights, weight, outer)
    columns = axis_labels(call, weights, weight, inner)
    for plane in weights.planes:
        if varying(plane) not in ([outer], [inner]):
            call.run.stays(narrowed(plane).flatten(), call.name)
    if groups > 1:
        columns = _without_columns(call, columns)
    maskable = call.run.parameters.mask_rows(weights.zeroing, rows)
    all_rows = [rows]
    if bias is not None:
        shifts = axis_labels(call, call.value(bias), bias, 0)
        all_rows.append(shifts)
        maskable &= call.run.parameters.mask_rows(call.value(bias).zeroing, shifts)
    name, own = _layer_name(call, weights, weight)
    maskable &= own
    outputs = call.run.record(
        Filters,
        call.run.node(call.name),
        out.size(writes),
        module=name,
        inputs=inputs,
        padding=call.run.is_padding(inputs),
        groups=groups,
        rows=torch.stack(all_rows),
        columns=columns,
        maskable=maskable,
    )
    if not maskable:
        call.run.run.relations.insert(-1, Unmasked(name, torch.cat(all_rows)))
    return [live(along(outputs, writes, out.shape))]


def _without_columns(call: Any, columns: Tensor) -> Tensor:
    call.run.stays(columns, call.name)
    return _NONE


def _layer_name(call: Any, weights: Value, weight: Tensor) -> tuple[str, bool]:
    """Return (the module a weight belongs to, is it a trained one?)."""
    labels = call.run.parameters
    sources = sorted(weights.zeroing or ())
    name = weights.origin or (sources[0] if sources else "")
    owner, _, last = name.rpartition(".")
    trained = labels.trained(frozenset(sources))
    running = call.run.sites.path
    owns = last == "weight" and owner in labels.modules
    if owns or running and name.startswith(running + "."):
        module = owner if owns else running
        if name in labels.layers.setdefault(module, {name}):
            return module, trained
    return name or call.run.node(call.name), trained


def _constant_kernel(
    call: Any, out: Tensor, inputs: Tensor, weight: Tensor, dim: int, groups: int
) -> list[Value] | None:
    """A depthwise conv by numbers that are the same for all channels leaves them where they are."""
    depthwise = groups == len(inputs) == out.size(dim) and call.argument(2, "bias") is None
    if depthwise and not call.value(weight).planes and bool((weight == weight[:1]).all()):
        return [live(along(inputs, dim, out.shape))]
    if not (inputs >= FIRST_CHANNEL).any():
        return None
    for tensor in (weight, call.argument(2, "bias")):
        for plane in call.value(tensor).planes:
            call.run.stays(narrowed(plane).flatten(), call.name)
    output = call.run.record(Whole, call.run.node(call.name), 1, inputs=inputs[None])
    return [live(everywhere(output, out.shape))]


def _weight_norm(call: Any, out: Tensor) -> list[Value] | None:
    """weight = g * v / |v|: zero where g is, not a number where v is."""
    direction, size, dim = (call.argument(k, "") for k in range(3))
    planes = []
    for plane in call.value(direction).planes:
        if varying(plane) == [dim]:
            planes.append(plane)
        else:
            call.run.stays(narrowed(plane).flatten(), call.name)
    for plane in call.value(size).planes:
        if planes and varying(plane) == [dim]:
            pairs = torch.stack([vector_along(planes[0], dim), vector_along(plane, dim)], 1)
            tie = Tied(call.name, _NONE, pairs)
            call.run.run.relations.append(tie)
            call.run.parameters.ties.append(tie)
    return [Value(tuple(planes), False, call.value(size).zeroing)]


def _prelu(call: Any, out: Tensor) -> list[Value] | None:
    """max(0, x) + slope * min(0, x), with one slope, or one for each channel along dimension 1."""
    features, weight = call.argument(0, "input"), call.argument(1, "weight")
    value, slopes = call.value(features), call.value(weight)
    if not value.live:
        return None
    labels = value.planes[0]
    if weight.numel() == 1 or not slopes.planes:
        return [live(labels)]
    rows = axis_labels(call, slopes, weight, 0)
    dim = min(1, out.dim() - 1)
    plane = along(rows, dim, out.shape)
    call.run.run.relations.append(Unmasked(call.name, rows))
    shape = torch.Size([n if d == dim else 1 for d, n in enumerate(out.shape)])
    return [
        live(
            combined(
                call, [(labels, labels.shape, False), (plane, shape, True)], out.shape, "first"
            )
        )
    ]
