"""Zeros among the parameters of a network, and filters that are nothing but zeros."""

from dataclasses import dataclass

from torch import Tensor, nn

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED_CONVS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


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
    """Count the filters of every conv of `model` whose weights are all zero, bias or not."""
    found = []
    for name, conv in model.named_modules():
        if isinstance(conv, _CONVS + _TRANSPOSED_CONVS):
            filters = _filters(conv)
            alive = int(filters.any(dim=1).sum())
            found.append(Zeros(name, len(filters) - alive, len(filters)))
    return found


def total_zeros(rows: list[Zeros]) -> dict[str, float]:
    """Return the zeros, the count and the share of zeros (the sparsity) over all of `rows`."""
    zeros, count = sum(row.zeros for row in rows), sum(row.count for row in rows)
    return {"zeros": zeros, "count": count, "share": zeros / max(count, 1)}


def _filters(conv: nn.Module) -> Tensor:
    """Return the conv's weights as [filters, weights of each]."""
    weight = conv.weight.detach()
    if not isinstance(conv, _TRANSPOSED_CONVS):
        return weight.flatten(1)
    by_group = weight.unflatten(0, (conv.groups, -1))  # [groups, C_in / groups, F / groups, ...]
    return by_group.transpose(1, 2).flatten(0, 1).flatten(1)
