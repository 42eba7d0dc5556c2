"""Norms: what reads channels to bring them to one scale, by a module's own numbers or none."""

from typing import Any

import torch
from torch import Tensor

from utils.graph.attention import mixed
from utils.graph.elementwise import combined
from utils.graph.labels import along, narrowed, varying, vector_along
from utils.graph.relations import Norm, Tied, Unmasked, Whole
from utils.graph.values import Value, live
from utils.graph.weights import axis_labels, read_labels

_NONE = torch.empty(0, dtype=torch.long)


def batch_norm(call: Any, out: Tensor) -> list[Value] | None:
    """Follow a batch or instance norm, of channels or of weights."""
    given = [
        call.argument(k, n)
        for k, n in enumerate(("running_mean", "running_var", "weight", "bias"), 1)
    ]
    if type(call.func).__name__ != "function":  # torch.batch_norm has another order
        weight, bias, mean, variance = [call.argument(k, "") for k in (1, 2, 3, 4)]
        given = [mean, variance, weight, bias]
    features = call.argument(0, "input")
    mean, variance, weight, bias = given
    if not call.value(features).live:
        return _norm_of_weights(call, out, features, weight, bias)
    instance = call.name == "instancenorm"
    zero = weight is None and bias is None and instance and mean is None
    return _norm(call, out, features, 1, out.size(1), given, zero=zero)


def group_norm(call: Any, out: Tensor) -> list[Value] | None:
    """Follow a group norm."""
    parameters = [call.argument(2, "weight"), call.argument(3, "bias")]
    groups = int(call.argument(1, "num_groups"))
    return _norm(call, out, call.argument(0, "input"), 1, groups, parameters)


def layer_norm(call: Any, out: Tensor) -> list[Value] | None:
    """Follow a layer norm over the last dimension, None if over several."""
    shape = call.argument(1, "normalized_shape")
    keywords = ((2, "weight"), (3, "bias")) if call.name == "layernorm" else ((2, "weight"),)
    parameters = [call.argument(k, n) for k, n in keywords]
    if len(shape) > 1:
        return None
    return _norm(call, out, call.argument(0, "input"), out.dim() - 1, 1, parameters)


def _norm(
    call: Any,
    out: Tensor,
    features: Tensor,
    dim: int,
    groups: int,
    parameters: list[Any],
    *,
    zero: bool = False,
) -> list[Value] | None:
    """Follow a norm of channels along `dim` in `groups`; without parameters, zero may stay zero."""
    value = call.value(features)
    if not value.live:
        return None
    dims = varying(value.planes[0])
    if dims and dim not in dims:
        return _norm_elsewhere(call, out, value.planes[0], parameters)
    if len(dims) == 2 and call.name in ("layernorm", "rmsnorm"):
        for plane in (plane for p in parameters for plane in call.value(p).planes):
            call.run.stays(narrowed(plane).flatten(), call.name)  # all heads have them in common
        return [live(mixed(call, value.planes[0], dim, in_heads=True))]
    inputs = read_labels(call, value, features, dim)
    if inputs is None:
        return None
    given = [p for p in parameters if p is not None]
    rows = [axis_labels(call, call.value(p), p, 0) for p in given]
    affine = [
        (call.value(p), r) for p, r in zip(given, rows, strict=True) if _affine(call, p, parameters)
    ]
    maskable = bool(affine) and all(call.run.parameters.mask_rows(v.zeroing, r) for v, r in affine)
    if parameters[-1] is None and parameters[-2:-1] == [None]:
        maskable = False
    if not maskable:
        return _unmasked_norm(call, out, inputs, dim, groups, rows, zero)
    name = _norm_name(call, affine)
    if 1 < groups < len(inputs) and not hasattr(
        call.run.parameters.modules.get(name), "num_groups"
    ):
        call.run.stays(inputs, call.name)  # the code says how many groups there are
    outputs = call.run.record(
        Norm,
        call.run.node(call.name),
        len(inputs),
        module=name,
        inputs=inputs,
        padding=call.run.is_padding(inputs),
        groups=groups,
        rows=torch.stack(rows),
    )
    return [live(along(outputs, dim, out.shape))]


def _affine(call: Any, parameter: Tensor, parameters: list[Any]) -> bool:
    """True for a scale or shift, which come last; False for running statistics."""
    return any(parameter is p for p in parameters[-2:])


def _norm_name(call: Any, affine: list[tuple[Value, Tensor]]) -> str:
    name = affine[0][0].origin or sorted(affine[0][0].zeroing or ("",))[0]
    owner, _, last = name.rpartition(".")
    return owner if last in ("weight", "bias") else name


def _unmasked_norm(
    call: Any, out: Tensor, inputs: Tensor, dim: int, groups: int, rows: list[Tensor], zero: bool
) -> list[Value]:
    """A norm that makes a constant of a zero channel, or reads channels together."""
    labels = along(inputs, dim, out.shape)
    if groups == len(inputs):
        parts = [(labels, out.shape, False)]
        parts += [(along(r, dim, out.shape), out.shape, True) for r in rows]
        for r in rows:
            call.run.run.relations.append(Unmasked(call.name, r))
        if zero and not rows:
            return [live(labels)]
        return [live(combined(call, parts, out.shape, "never"))]
    for r in rows:
        call.run.stays(r, call.name)
    node = call.run.node(call.name)
    outputs = call.run.record(Whole, node, groups, inputs=inputs.reshape(groups, -1))
    spread = outputs.repeat_interleave(len(inputs) // groups)
    return [live(along(spread, dim, out.shape))]


def _norm_elsewhere(call: Any, out: Tensor, labels: Tensor, parameters: list[Any]) -> list[Value]:
    """A norm over other dimensions than that of the channels: a channel stays itself."""
    for tensor in parameters:
        for plane in call.value(tensor).planes:
            call.run.stays(narrowed(plane).flatten(), call.name)
    return [live(combined(call, [(labels, labels.shape, False)], labels.shape, "never"))]


def _norm_of_weights(
    call: Any, out: Tensor, features: Tensor, weight: Tensor | None, bias: Tensor | None
) -> list[Value] | None:
    """Weights that are standardized filter by filter by a batch norm: [1, filters, weights]."""
    value = call.value(features)
    planes = []
    for plane in value.planes:
        if varying(plane) == [1]:
            planes.append(plane)
        else:
            call.run.stays(narrowed(plane).flatten(), call.name)
    if bias is not None or features.dim() < 2:
        return None
    if weight is not None and planes:
        scale = call.value(weight).planes
        for plane in scale:
            pairs = torch.stack([vector_along(planes[0], 1), vector_along(plane, 0)], 1)
            tie = Tied(call.name, _NONE, pairs)
            call.run.run.relations.append(tie)
            call.run.parameters.ties.append(tie)
    return [Value(tuple(planes), False, value.zeroing)]
