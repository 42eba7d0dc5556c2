"""Masks: pruned filters are zero, with their norms' scale and shift, and stay zero in training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph


class ParameterMasks:
    """Zeroes entries of parameters, in place and in one fused pass; subclasses say which."""

    def __init__(self) -> None:
        self.modules: set[str] = set()  # whose parameters are zeroed, at least in part
        self._parameters: list[Tensor] = []
        self._factors: list[Tensor] = []  # 1 is kept, 0 is pruned

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The parameters that are zeroed, at least in part."""
        return tuple(self._parameters)

    def add(self, module: str, parameter: Tensor, factor: Tensor) -> None:
        """Let a parameter of a module be multiplied by `factor`, which is broadcast to it."""
        self.modules.add(module)
        self._parameters.append(parameter)
        self._factors.append(factor)

    @torch.no_grad()
    def apply(self) -> None:
        """Zero the masked entries; call it after every optimizer step."""
        if self._parameters:
            torch._foreach_mul_(self._parameters, self._factors)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Zero the masked entries within the block; then they are what they were before."""
        before = [parameter.detach().clone() for parameter in self._parameters]
        try:
            self.apply()
            yield
        finally:
            if before:
                torch._foreach_copy_(self._parameters, before)


class ChannelMasks(ParameterMasks):
    """Zeroes every masked filter of a model.

    A filter's weight and bias are zeroed, and scale and shift of every norm position that is then
    zero, of torch's norms and of those that the network's own code computes, so that the filter's
    channel is exactly zero in training as in evaluation (as the official `grad_mask` does after
    each optimizer step).
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        masks: Mapping[str, Tensor],
        *,
        unmasked: Tensor | None = None,
    ):
        super().__init__()
        alive = graph.alive(masks, unmasked=unmasked)
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name, dims in graph.masked.items():
            for dim in dims:
                kept = alive[graph.parameters[name][dim]]
                if not kept.all():
                    shape = [-1 if d == dim else 1 for d in range(tensors[name].dim())]
                    factor = kept.to(tensors[name]).view(shape)
                    self.add(name.rpartition(".")[0], tensors[name], factor)
