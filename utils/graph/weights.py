"""Which labels a layer reads: of its input, and of its weight along a dimension."""

from typing import Any

import torch
from torch import Tensor

from utils.graph.labels import narrowed, varying, vector_along
from utils.graph.relations import CONSTANT, Blocks
from utils.graph.values import Value


def is_leaf(value: Value) -> bool:
    """True for a parameter itself."""
    return value.origin is not None


def read_labels(call: Any, value: Value, features: Tensor, dim: int) -> Tensor | None:
    """Return the labels [C_in] that a layer reads along `dim`."""
    if not value.live:
        for plane in value.planes:
            call.run.stays(narrowed(plane).flatten(), call.name)
        return torch.full((features.size(dim),), CONSTANT)
    labels = value.planes[0]
    dims = varying(labels)
    if dims in ([], [dim]):
        return vector_along(labels, dim)
    return _merged(call, labels, dim) if dim in dims else None


def _merged(call: Any, labels: Tensor, dim: int) -> Tensor:
    """Return fresh labels [C] for channels that several are spread over, as pixel shuffle does."""
    rows = narrowed(labels).movedim(dim, 0).flatten(1)
    return call.run.record(Blocks, call.run.node("merge"), len(rows), inputs=rows)


def axis_labels(call: Any, value: Value, tensor: Tensor, dim: int) -> Tensor:
    """Return the labels of a weight's positions along one of its dimensions."""
    size = tensor.size(dim)
    if is_leaf(value) and value.origin in call.run.parameters.labels:
        return call.run.parameters.labels[value.origin][dim]
    for plane in value.planes:
        if varying(plane) == [dim]:
            return vector_along(plane, dim)
    fresh = call.run.parameters.fresh(size)
    call.run.stays(fresh, call.name)
    return fresh
