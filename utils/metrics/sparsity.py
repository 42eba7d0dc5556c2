"""Zeros among the parameters of a network, and filters that are nothing but zeros."""

from dataclasses import dataclass

from torch import nn

from utils.graph.emptied import is_emptied
from utils.graph.filters import filters_first
from utils.metrics.cost import CONVS, TRANSPOSED_CONVS


@dataclass(frozen=True)
class Zeros:
    """How many of the `count` values (or filters) of the tensor `name` are zero."""

    name: str
    zeros: int
    count: int


def zero_values(model: nn.Module) -> list[Zeros]:
    """Count the zeros of every parameter of `model`; one with two names counts once."""
    return [
        Zeros(name, parameter.numel() - int(parameter.count_nonzero()), parameter.numel())
        for name, parameter in model.named_parameters()
    ]


def zero_filters(model: nn.Module) -> list[Zeros]:
    """Count the filters of every conv of `model` whose weights are all zero, bias or not.

    Convs that compute nothing any more are left out.
    """
    found = []
    for name, conv in model.named_modules():
        if isinstance(conv, CONVS + TRANSPOSED_CONVS) and not is_emptied(conv):
            filters = filters_first(conv)
            alive = int(filters.flatten(1).any(dim=1).sum())
            found.append(Zeros(name, len(filters) - alive, len(filters)))
    return found


def total_zeros(rows: list[Zeros]) -> dict[str, float]:
    """Return the zeros, the count and the share of zeros (the sparsity) over all of `rows`."""
    zeros, count = sum(row.zeros for row in rows), sum(row.count for row in rows)
    return {"zeros": zeros, "count": count, "share": zeros / max(count, 1)}
