"""Emptied layers: convs, linears and norms of which no channel is used, so they compute nothing."""

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from utils.graph.aligned import Aligned, Alignment, be_aligned, own_class
from utils.graph.relations import Absent

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_OF_ONE_SHAPE = (nn.Linear, _BatchNorm, nn.LayerNorm, nn.GroupNorm)  # but for the channels


class Emptied(Aligned):
    """What an emptied layer does instead of its own class's `forward`."""

    prefix = "Emptied"

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return zeros of the shape that the layer would give, of `width` channels."""
        features = args[0] if args else next(iter(kwargs.values()))
        shape, dtype = list(features.shape), features.dtype
        if isinstance(self, _CONVS):
            sizes = enumerate(shape[-len(self.kernel_size) :])
            shape[-len(self.kernel_size) :] = [self._places(size, dim) for dim, size in sizes]
        device = features.device.type
        if not isinstance(self, _BatchNorm) and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        shape[self.alignment.gives] = self.width
        if features.dim() == 4 and _is_channels_last(features):
            n, c, h, w = shape
            return features.new_zeros((n, h, w, c), dtype=dtype).permute(0, 3, 1, 2)
        return features.new_zeros(shape, dtype=dtype)

    def _places(self, size: int, dim: int) -> int:
        """Return how many places a conv gives along a dimension of so many."""
        if self.padding == "same":
            return size
        padding = 0 if self.padding == "valid" else self.padding[dim]
        reach = self.dilation[dim] * (self.kernel_size[dim] - 1)
        return (size + 2 * padding - reach - 1) // self.stride[dim] + 1

    def extra_repr(self) -> str:
        """Say how many zeros it gives."""
        return f"zeros in {self.width} channels"


class Nothing(Absent):
    """The zeros that an emptied layer gives, of which one place stays."""

    def never_empty(self) -> list[Tensor]:
        return [self.outputs]


def _is_channels_last(features: Tensor) -> bool:
    """True if channels lie last; the strides tell it of a single channel, too."""
    return features.stride(1) == 1 and features.is_contiguous(memory_format=torch.channels_last)


def can_be_emptied(layer: nn.Module) -> bool:
    """True for a layer of which is known what shape it gives."""
    plain = any(own_class(layer).forward is conv.forward for conv in _CONVS)
    return plain or isinstance(layer, _OF_ONE_SHAPE)


def empty(layer: nn.Module, alignment: Alignment, width: int) -> None:
    """Let a layer give `width` zeros and compute nothing, in place."""
    be_aligned(layer, Emptied, alignment, width)


def is_emptied(module: nn.Module) -> bool:
    """True for an emptied layer."""
    return isinstance(module, Emptied)
