"""Masks: pruned filters are zero, with their norms' scale and shift, and stay zero in training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.relations import Filters, Norm


class ParameterMasks:
    """Zeroes entries of parameters, in place and in one fused pass; subclasses say which."""

    def __init__(self) -> None:
        self.modules: set[str] = set()  # whose parameters are zeroed, at least in part
        self._parameters: list[Tensor] = []
        self._factors: list[Tensor] = []  # 1 is kept, 0 is pruned

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
    zero, so that the filter's channel is exactly zero in training as in evaluation (as the official
    `grad_mask` does after each optimizer step).
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, masks: Mapping[str, Tensor]):
        super().__init__()
        alive = graph.alive(masks)
        for relation in graph.relations:
            if isinstance(relation, Filters | Norm) and not alive[relation.outputs].all():
                module = model.get_submodule(relation.module)
                self._add_module(relation.module, module, alive[relation.outputs])

    def _add_module(self, module_name: str, module: nn.Module, alive: Tensor) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            factor = alive.to(parameter)
            if name == "weight" and getattr(module, "transposed", False):
                blocks = factor.reshape(module.groups, 1, -1)  # weight is [C_in, C_out / groups]
                factor = blocks.expand(-1, parameter.size(0) // module.groups, -1).flatten(0, 1)
            trailing = [1] * (parameter.dim() - factor.dim())
            self.add(module_name, parameter, factor.reshape(*factor.shape, *trailing))
