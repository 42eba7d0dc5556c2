"""What removal adds to a network: picking channels, with zeros in between, and adding them."""

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
        picked = self._pick(*sources)
        if self.targets is None:
            return picked
        shape = list(picked.shape)
        shape[self.dim] = self.width
        return picked.new_zeros(shape).index_copy(self.dim, self.targets, picked)

    def _pick(self, *sources: Tensor) -> Tensor:
        """Return the channels that are not zero."""
        joined = sources[0] if len(sources) == 1 else torch.cat(sources, self.dim)
        if self.picked is not None:
            return joined.index_select(self.dim, self.picked)
        if joined.size(self.dim) != self.num_picked:
            return joined.narrow(self.dim, 0, self.num_picked)
        return joined

    def extra_repr(self) -> str:
        zeros = 0 if self.targets is None else self.width - len(self.targets)
        return f"{self.width} channels along dim {self.dim}, {zeros} of them zero"


class ScatterAdd(ChannelGather):
    """stream + gathered, without writing the zeros of what is gathered."""

    def forward(self, stream: Tensor, *sources: Tensor) -> Tensor:
        picked = self._pick(*sources)
        if self.targets is None:
            return stream + picked
        return stream.index_add(self.dim, self.targets, picked)


@dataclass(frozen=True)
class Gather:
    """A value to be made: `index` into the sources' shrunken channels along `dim`, -1 for zero."""

    sources: tuple[fx.Node, ...]
    index: tuple[int, ...]
    dim: int
