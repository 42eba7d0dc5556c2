"""Aligned layers: a conv, linear or norm that picks from its input and writes into a wider output.

Such a layer is of a subclass of its own class, has the same parameters under the same names, and
computes what it computed; only the places of its channels are told by two index tensors.
"""

from functools import cache
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.alignment import Alignment


class Aligned:
    """What an aligned layer does around its own class's `forward`."""

    alignment: Alignment
    width: int

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute on the channels `picked` of the input; write the result to those `placed`."""
        if self.picked is not None:
            if args:
                args = (args[0].index_select(self.alignment.takes, self.picked), *args[1:])
            else:
                name, features = next(iter(kwargs.items()))
                kwargs[name] = features.index_select(self.alignment.takes, self.picked)
        out = super().forward(*args, **kwargs)
        if self.placed is None:
            return out
        shape = list(out.shape)
        shape[self.alignment.gives] = self.width
        return out.new_zeros(shape).index_copy(self.alignment.gives, self.placed, out)

    def extra_repr(self) -> str:
        """Say what the layer's class says, and which channels go in and out."""
        told = [super().extra_repr()]
        if self.picked is not None:
            told.append(f"picks {len(self.picked)}")
        if self.placed is not None:
            told.append(f"places {len(self.placed)} among {self.width}")
        return ", ".join(told)


@cache
def _aligned_class(cls: type[nn.Module]) -> type[nn.Module]:
    return type(f"Aligned{cls.__name__}", (Aligned, cls), {"__module__": cls.__module__})


def align(
    layer: nn.Module,
    alignment: Alignment,
    picked: Tensor | None,
    placed: Tensor | None,
    width: int,
) -> None:
    """Make the layer an aligned one, in place.

    Args:
        picked: places [K] in its input that the layer reads, None for all.
        placed: places [F] in its output, of `width` channels, that it writes; None for all.
    """
    layer.__class__ = _aligned_class(type(layer))
    layer.alignment, layer.width = alignment, width
    for name, index in {"picked": picked, "placed": placed}.items():
        if index is not None:
            index = index.to(next(layer.parameters()).device)
        layer.register_buffer(name, index, persistent=False)


def is_aligned(module: nn.Module) -> bool:
    """True for an aligned layer."""
    return isinstance(module, Aligned)


def index_of(kept: Tensor, there: Tensor) -> Tensor | None:
    """Return where the places flagged in `kept` [C] stand among those in `there`, None if equal."""
    if torch.equal(kept, there):
        return None
    return (there.cumsum(0) - 1)[kept]
