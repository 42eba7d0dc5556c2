"""Copies of a network, whatever else it holds."""

import copy
from collections.abc import Mapping

import torch
import torch.nn as nn
from torch import Tensor

from utils.runs.borrowed_state import evaluating


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of the model, without what its modules cached while they evaluated.

    Raises:
        ValueError: if something in it cannot be copied.
    """
    held = [value for module in model.modules() for value in vars(module).values()]
    memo = {id(t): t.detach().clone() for t in held if isinstance(t, Tensor) and not t.is_leaf}
    memo |= {id(f): f for f in held if isinstance(f, torch.jit.ScriptFunction)}
    try:
        twin = copy.deepcopy(model, memo)  # tensors that were computed are no part of its state
    except Exception as error:  # whatever the attributes' own code raises
        lines = str(error).strip().splitlines() or [repr(error)]
        raise ValueError(f"{type(model).__name__} cannot be copied: {lines[0][:200]}") from error
    with evaluating(twin):
        return twin


def dtypes_of(model: nn.Module) -> dict[str, torch.dtype]:
    """Return {name: dtype} of the parameters and buffers that hold real numbers."""
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor.dtype for name, tensor in named if tensor.is_floating_point()}


def give_dtypes(model: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    """Give tensors the dtypes of their names, in place; new biases those of their weights."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        beside = f"{name.removesuffix('bias')}weight"
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtypes.get(name, dtypes.get(beside, tensor.dtype)))
