"""The one operation that removal adds to a network: picking channels, with zeros in between."""

from dataclasses import dataclass

import torch
import torch.fx as fx
import torch.nn as nn
from torch import Tensor


class ChannelGather(nn.Module):
    """Output channel i is channel index[i] of the sources joined along `dim`, or zero for -1."""

    def __init__(self, index: tuple[int, ...], dim: int):
        super().__init__()
        self.dim, self.width = dim, len(index)
        places = torch.tensor(index, dtype=torch.long)
        filled = places >= 0
        picked = places[filled]
        whole = torch.equal(picked, torch.arange(len(picked)))
        self.register_buffer("picked", None if whole else picked, persistent=False)
        targets = None if filled.all() else filled.nonzero().flatten()
        self.register_buffer("targets", targets, persistent=False)
        self.num_picked = len(picked)

    def forward(self, *sources: Tensor) -> Tensor:
        joined = sources[0] if len(sources) == 1 else torch.cat(sources, self.dim)
        if self.picked is not None:
            joined = joined.index_select(self.dim, self.picked)
        elif joined.size(self.dim) != self.num_picked:
            joined = joined.narrow(self.dim, 0, self.num_picked)
        if self.targets is None:
            return joined
        shape = list(joined.shape)
        shape[self.dim] = self.width
        return joined.new_zeros(shape).index_copy(self.dim, self.targets, joined)

    def extra_repr(self) -> str:
        zeros = 0 if self.targets is None else self.width - len(self.targets)
        return f"{self.width} channels along dim {self.dim}, {zeros} of them zero"


@dataclass(frozen=True)
class Gather:
    """A value to be made: `index` into the sources' shrunken channels along `dim`, -1 for zero."""

    sources: tuple[fx.Node, ...]
    index: tuple[int, ...]
    dim: int
