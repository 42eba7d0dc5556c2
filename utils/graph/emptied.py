"""Emptied layers: convs, linears and norms of which no channel is used, so they compute nothing."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from utils.graph.aligned import Aligned, Alignment, be_aligned
from utils.graph.relations import Absent

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_OF_ONE_SHAPE = (nn.Linear, _BatchNorm, nn.LayerNorm, nn.GroupNorm)  # but for the channels


class Emptied(Aligned):
    """What an emptied layer does instead of its own class's `forward`."""

    prefix = "Emptied"

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return zeros of the shape that the layer would give, of `width` channels."""
        features = args[0] if args else next(iter(kwargs.values()))
        shape, dtype, device = _given(self, features.shape), features.dtype, features.device.type
        if not isinstance(self, _BatchNorm) and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        shape[self.alignment.gives] = self.width
        if features.dim() == 4 and _is_channels_last(features):
            n, c, h, w = shape
            return features.new_zeros((n, h, w, c), dtype=dtype).permute(0, 3, 1, 2)
        return features.new_zeros(shape, dtype=dtype)

    def extra_repr(self) -> str:
        """Say how many zeros it gives."""
        return f"zeros in {self.width} channels"


class Nothing(Absent):
    """The zeros that an emptied layer gives, of which one place stays."""

    def never_empty(self) -> list[Tensor]:
        return [self.outputs]


def _given(layer: nn.Module, shape: Sequence[int]) -> list[int]:
    """Return the shape that a layer gives of one, but for its channels."""
    found = list(shape)
    if isinstance(layer, _CONVS):
        dims = len(layer.kernel_size)
        found[-dims:] = [_places(layer, dim, size) for dim, size in enumerate(found[-dims:])]
    return found


def _places(conv: nn.Module, dim: int, size: int) -> int:
    """Return how many places a conv gives along a dimension of so many."""
    if conv.padding == "same":
        return size
    padding = 0 if conv.padding == "valid" else conv.padding[dim]
    reach = conv.dilation[dim] * (conv.kernel_size[dim] - 1)
    return (size + 2 * padding - reach - 1) // conv.stride[dim] + 1


def _is_channels_last(features: Tensor) -> bool:
    """True if channels lie last; the strides tell it of a single channel, too."""
    return features.stride(1) == 1 and features.is_contiguous(memory_format=torch.channels_last)


def can_be_emptied(
    layer: nn.Module, alignment: Alignment, read: Sequence[int], gave: Sequence[int]
) -> bool:
    """True for a layer of which is known what shape it gives: it did, of what it read once."""
    if not isinstance(layer, _CONVS + _OF_ONE_SHAPE) or len(read) != len(gave):
        return False
    given = _given(layer, read)
    given[alignment.gives] = gave[alignment.gives]
    return given == list(gave)


def empty(layer: nn.Module, alignment: Alignment, width: int) -> None:
    """Let a layer give `width` zeros and compute nothing, in place."""
    be_aligned(layer, Emptied, alignment, width)


def is_emptied(module: nn.Module) -> bool:
    """True for an emptied layer."""
    return isinstance(module, Emptied)
