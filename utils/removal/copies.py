"""Copies of a network, whatever else it holds."""

import copy

import torch.nn as nn
from torch import Tensor


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of the model.

    Raises:
        ValueError: if something in it cannot be copied.
    """
    made = (value for module in model.modules() for value in vars(module).values())
    memo = {id(t): t.detach().clone() for t in made if isinstance(t, Tensor) and not t.is_leaf}
    try:
        return copy.deepcopy(model, memo)  # tensors that were computed are no part of its state
    except Exception as error:  # whatever the attributes' own code raises
        lines = str(error).strip().splitlines() or [repr(error)]
        raise ValueError(f"{type(model).__name__} cannot be copied: {lines[0][:200]}") from error
