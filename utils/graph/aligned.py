"""Aligned layers: a conv, linear or norm that picks from its input and writes into a wider output.

Such a layer is of a subclass of its own class, has the same parameters under the same names, and
computes what it computed; only the places of its channels are told by two index tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor


@dataclass(frozen=True)
class Alignment:
    """Where the channels of a layer's input and output lie; from the end, so negative.

    A `norm` computes a layer or group norm and nothing else: it can leave zeros out of its input.
    """

    takes: int
    gives: int
    norm: bool = False


class Aligned:
    """What an aligned layer does around its own class's `forward`."""

    prefix = "Aligned"  # of the names of such classes
    alignment: Alignment
    width: int

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute on the channels `picked` of the input; write the result to those `placed`."""
        if self.picked is not None:
            if args:
                args = (self._picked_of(args[0]), *args[1:])
            else:
                name, features = next(iter(kwargs.items()))
                kwargs[name] = self._picked_of(features)
        return self._written(super().forward(*args, **kwargs), self.alignment.gives)

    def around(self, inside: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
        """Do what `forward` does, with `inside` in place of the own class's."""
        if self.picked is not None:
            features = self._picked_of(features)
        return self._written(inside(features), self.alignment.gives)

    def _picked_of(self, features: Tensor) -> Tensor:
        return features.index_select(self.alignment.takes, self.picked)

    def _written(self, out: Tensor, dim: int) -> Tensor:
        """Return the result at its places along `dim` of the wider output."""
        if self.placed is None:
            return out
        shape = list(out.shape)
        shape[dim] = self.width
        return out.new_zeros(shape).index_copy(dim, self.placed, out)

    def extra_repr(self) -> str:
        """Say what the layer's class says, and which channels go in and out."""
        told = [super().extra_repr()]
        if self.picked is not None:
            told.append(f"picks {len(self.picked)}")
        if self.placed is not None:
            told.append(f"places {len(self.placed)} among {self.width}")
        return ", ".join(told)


class AlignedNorm(Aligned):
    """A layer or group norm of channels that are left, as if the others were there and zero.

    `groups` [C] says which of the norm's groups each channel of its input is in; each has `size`
    channels, zeros that are not there among them.
    """

    size: int

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Normalize the input; keep what is `picked`, and write it to the places `placed`."""
        features = args[0] if args else next(iter(kwargs.values()))
        x = features.movedim(self.alignment.takes, -1)  # [N, ..., C]
        x = self._normalized(x)
        if self.picked is not None:
            x = x.index_select(-1, self.picked)
        x = x * self.weight
        x = x if self.bias is None else x + self.bias
        return self._written(x, -1).movedim(-1, self.alignment.gives)

    def _normalized(self, x: Tensor) -> Tensor:
        if self.groups is None:  # a layer norm: each place by itself
            mean = x.sum(-1, keepdim=True) / self.size
            apart = (x - mean).square().sum(-1, keepdim=True)
            absent = self.size - x.size(-1)
            return (x - mean) / ((apart + absent * mean.square()) / self.size + self.eps).sqrt()
        count = self.size * x[0, ..., 0].numel()
        mean = self._over_groups(x) / count  # [N, G]
        apart = self._over_groups((x - self._spread(mean, x)).square())
        there = torch.bincount(self.groups, minlength=self.num_groups)
        absent = (self.size - there) * (count // self.size)
        variance = (apart + absent * mean.square()) / count
        return (x - self._spread(mean, x)) / self._spread((variance + self.eps).sqrt(), x)

    def _over_groups(self, x: Tensor) -> Tensor:
        """Return the sums [N, G] over all places of each group's channels, of x [N, ..., C]."""
        sums = x.flatten(1, -2).sum(1) if x.dim() > 2 else x
        return sums.new_zeros(len(x), self.num_groups).index_add(1, self.groups, sums)

    def _spread(self, by_group: Tensor, x: Tensor) -> Tensor:
        """Return a number of each group [N, G] for each channel of x, [N, 1, ..., C]."""
        spread = by_group.index_select(1, self.groups)
        return spread.reshape(len(x), *[1] * (x.dim() - 2), -1)


@cache
def _aligned_class(cls: type[nn.Module], base: type["Aligned"]) -> type[nn.Module]:
    return type(f"{base.prefix}{cls.__name__}", (base, cls), {"__module__": cls.__module__})


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
    be_aligned(layer, Aligned, alignment, width)
    for name, index in {"picked": picked, "placed": placed}.items():
        if index is not None:
            index = index.to(next(layer.parameters()).device)
        layer.register_buffer(name, index, persistent=False)


def be_aligned(layer: nn.Module, kind: type[Aligned], alignment: Alignment, width: int) -> None:
    """Make the layer an aligned one of a kind, in place, that reads and writes all channels."""
    if not isinstance(layer, kind):
        layer.__class__ = _aligned_class(own_class(layer), kind)
    layer.alignment, layer.width = alignment, width
    for name in ("picked", "placed"):
        layer.register_buffer(name, None, persistent=False)


def align_norm(norm: nn.Module, there: Tensor, count: int) -> None:
    """Let an aligned norm of `count` groups read only the channels in `there` [C], in place.

    `there` are flags; the others are zero. Its `picked` are places among these, which it keeps of
    what it normalized.
    """
    norm.__class__ = _aligned_class(own_class(norm), AlignedNorm)
    norm.size, groups = len(there) // count, None
    if isinstance(norm, nn.GroupNorm):
        norm.num_groups = count
        device = next(norm.parameters()).device
        groups = torch.arange(count).repeat_interleave(norm.size)[there].to(device)
    norm.register_buffer("groups", groups, persistent=False)


def own_class(layer: nn.Module) -> type[nn.Module]:
    """Return the class that a layer is of, or was before it was aligned."""
    return next(cls for cls in type(layer).__mro__ if not issubclass(cls, Aligned))


def is_aligned(module: nn.Module) -> bool:
    """True for an aligned layer."""
    return isinstance(module, Aligned)


def places_of(module: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """Return (picked, placed) of an aligned layer, on the CPU; None for all channels, in order."""
    if not is_aligned(module):
        return None, None
    return tuple(None if t is None else t.cpu() for t in (module.picked, module.placed))


def index_of(kept: Tensor, there: Tensor) -> Tensor | None:
    """Return where the places flagged in `kept` [C] stand among those in `there`, None if equal."""
    if torch.equal(kept, there):
        return None
    return (there.cumsum(0) - 1)[kept]
