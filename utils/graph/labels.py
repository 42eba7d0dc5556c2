"""Label tensors: which channel each position of a value came from.

A *label* is an integer that names one channel of the operation that computed it (or one position of
a parameter). Labels have their value's shape, and stride 0 along every dimension along which they
do not vary.
"""

import torch
from torch import Tensor

from utils.graph.relations import CONSTANT, ZERO


def opened(labels: Tensor) -> Tensor:
    """Return labels with one place where a dimension is empty along which they do not vary.

    So the channels of what a detector's boxes hold are known, though there may be no box.
    """
    if labels.numel():
        return labels
    sizes = zip(labels.shape, labels.stride(), strict=True)
    shape = [1 if size == stride == 0 else size for size, stride in sizes]
    return labels.as_strided(shape, labels.stride(), labels.storage_offset())


def compressed(labels: Tensor) -> Tensor:
    """Return equal labels in which every dimension along which they do not vary has stride 0."""
    for dim in range(labels.dim()):
        if labels.size(dim) > 1 and labels.stride(dim) != 0:
            places = opened(labels)
            if places.numel() and bool((places == places.narrow(dim, 0, 1)).all()):
                labels = labels.narrow(dim, 0, 1).expand_as(labels)
    return labels


def varying(labels: Tensor) -> list[int]:
    """Return the dimensions along which compressed labels vary."""
    return [d for d in range(labels.dim()) if labels.size(d) > 1 and labels.stride(d) != 0]


def axis_vector(labels: Tensor) -> tuple[int, Tensor] | None:
    """Return (dim, vector) of compressed labels that vary along one dimension only, else None.

    Labels that vary nowhere are given dimension 1, where torch keeps channels.
    """
    dims = varying(labels)
    if len(dims) > 1 or labels.dim() == 0:
        return None
    dim = dims[0] if dims else min(1, labels.dim() - 1)
    return dim, vector_along(labels, dim)


def vector_along(labels: Tensor, dim: int) -> Tensor:
    """Return the labels [C] at the first position of all other dimensions, which may be empty."""
    labels = opened(labels)
    if labels.numel() == 0:
        return labels.new_full((labels.size(dim),), CONSTANT)
    return labels[tuple(slice(None) if d == dim else 0 for d in range(labels.dim()))]


def along(vector: Tensor, dim: int, shape: torch.Size) -> Tensor:
    """Spread a vector over a shape, along `dim`, without memory."""
    return vector.reshape([-1 if d == dim else 1 for d in range(len(shape))]).expand(shape)


def everywhere(label: int | Tensor, shape: torch.Size) -> Tensor:
    """Return one label at every position of a shape."""
    return torch.as_tensor(label).reshape([1] * len(shape)).expand(shape)


def narrowed(labels: Tensor) -> Tensor:
    """Return the labels once along every dimension along which they do not vary."""
    labels = opened(labels)
    return labels[tuple(slice(None) if labels.stride(d) else slice(1) for d in range(labels.dim()))]


def without_borders(labels: Tensor) -> Tensor:
    """Give zeros padded around a channel's map that channel's label: both vanish together."""
    dims = varying(labels)
    if labels.dim() < 3 or len(dims) < 2 or not bool((labels == ZERO).any()):
        return labels
    for dim in dims:
        rest = [d for d in range(labels.dim()) if d != dim]
        spread = narrowed(labels).amax(rest, keepdim=True).expand_as(labels)
        if bool(((labels == spread) | (labels == ZERO)).all()):
            return compressed(spread)
    return labels


def left_of(labels: Tensor, present: Tensor) -> Tensor | None:
    """Return the labels that a smaller value holds, whose channels are `present`.

    None if no tensor can hold them: the numbers left along a dimension differ from row to row.
    """
    if len(varying(labels)) == 1:
        (dim,) = varying(labels)
        vector = vector_along(labels, dim)
        left = vector[present[vector]]
        shape = [len(left) if d == dim else n for d, n in enumerate(labels.shape)]
        return along(left, dim, torch.Size(shape))
    there = present[narrowed(labels)]
    if bool(there.all()):
        return labels
    masks = [there.any([d for d in range(there.dim()) if d != dim]) for dim in range(there.dim())]
    if int(there.sum()) == _product(int(mask.sum()) for mask in masks):  # a box
        for dim in varying(labels):
            labels = labels.index_select(dim, masks[dim].nonzero().flatten())
        return labels
    for dim in varying(labels):
        counts = there.sum(dim)
        if bool((counts == counts.flatten()[0]).all()):
            order = there.sort(dim=dim, descending=True, stable=True).indices
            picked = order.narrow(dim, 0, int(counts.flatten()[0]))
            small = narrowed(labels).gather(dim, picked)
            shape = [
                small.size(d) if labels.stride(d) else labels.size(d) for d in range(labels.dim())
            ]
            return small.expand(shape)
    return None


def _product(counts) -> int:
    total = 1
    for count in counts:
        total *= count
    return total
