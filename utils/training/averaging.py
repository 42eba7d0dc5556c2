"""The exponential moving average of a network's weights, which is often the better network."""

import copy
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """A copy of a network whose weights follow the network's as it trains.

    After the n-th update (from 0) the average moves to the weights by 1 - min(decay, (1+n)/(10+n)):
    the first weights, which are those of a network not trained yet, are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay, self._updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the averaged weights towards those of `model`."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        self._updates += 1

    @torch.no_grad()
    def copy_buffers(self, model: nn.Module) -> None:
        """Take over the running statistics of `model`, which are averages already."""
        for own, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            own.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a stop."""
        return {"updates": self._updates, "weights": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._updates = state["updates"]
        self.model.load_state_dict(state["weights"])
