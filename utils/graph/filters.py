"""Filters of a layer, as slices of its weight."""

import torch.nn as nn
from torch import Tensor


def filters_first(layer: nn.Module) -> Tensor:
    """Return a conv's or linear's weight as [filters, C_in / groups, ...], transposed convs too."""
    weight = layer.weight.detach()
    if not getattr(layer, "transposed", False):
        return weight
    by_group = weight.unflatten(0, (layer.groups, -1))  # [groups, C_in / groups, F / groups, ...]
    return by_group.transpose(1, 2).flatten(0, 1)
