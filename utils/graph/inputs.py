"""Inputs of a network: one tensor, a tuple of them, or a dict by name."""

import inspect
from typing import Any

import torch.nn as nn
from torch import Tensor

from utils.graph.values import mapped


def repeated(example: Any, count: int, like: Tensor | None = None) -> Any:
    """Return the first image of an example `count` times, in the dtype and place of `like`."""

    def change(tensor: Tensor) -> Tensor:
        if like is not None:
            tensor = tensor.to(like.device, like.dtype if tensor.is_floating_point() else None)
        if tensor.dim() == 0:
            return tensor
        return tensor[:1].repeat(count, *[1] * (tensor.dim() - 1))

    return mapped(example, change)


def called(model: nn.Module, inputs: Any) -> Any:
    """Call the model on its inputs."""
    if isinstance(inputs, dict):
        try:
            inspect.signature(model.forward).bind(**inputs)
        except TypeError:
            return model(inputs)
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)
