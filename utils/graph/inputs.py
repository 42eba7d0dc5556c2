"""Inputs of a network: one tensor, a tuple of them, or a dict by name.

An argument that is a list of dicts says of each image what is in it, as detectors are trained:
(images, [{"boxes": [n, 4], "labels": [n]}]).
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch.nn as nn
from torch import Tensor

from utils.graph.values import mapped, tensors_in


def placed(example: Any, model: nn.Module) -> Any:
    """Return an example as a model's first real parameter lies: in its dtype, on its device."""
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    if like is None:
        return example

    def change(tensor: Tensor) -> Tensor:
        return tensor.to(like.device, like.dtype if tensor.is_floating_point() else None)

    return mapped(example, change)


def repeated(example: Any, count: int, model: nn.Module | None = None) -> Any:
    """Return the first image of an example `count` times, `placed` for the model, if one is given.

    What is said of the image is said of each.
    """

    def batch(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0:
            return tensor
        return tensor[:1].repeat(count, *[1] * (tensor.dim() - 1))

    def change(argument: Any) -> Any:
        if _is_annotation(argument):
            return [mapped(argument[0], lambda tensor: tensor) for _ in range(count)]
        return mapped(argument, batch)

    example = example if model is None else placed(example, model)
    return _by_argument(example, change)


def drawn(example: Any, draw: Callable[[Tensor], Tensor]) -> Any:
    """Return an example with every tensor changed, except in what says what images hold."""
    return _by_argument(
        example, lambda value: value if _is_annotation(value) else mapped(value, draw)
    )


def without_annotations(example: Any) -> Any:
    """Return an example with None for what says what images hold."""
    return _by_argument(example, lambda value: None if _is_annotation(value) else value)


def inputs_labelled(inputs: Any) -> Iterator[tuple[Tensor, int]]:
    """Yield the tensors of numbers among the inputs, [N, C, ...], and how many labels each has.

    That is C, or one for all that says what images hold: it has no channels.
    """
    images = {id(tensor) for tensor in tensors_in(without_annotations(inputs))}
    for tensor in tensors_in(inputs):
        if tensor.dim() > 1 and tensor.is_floating_point():
            yield tensor, tensor.size(1) if id(tensor) in images else 1


def _by_argument(example: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(example, dict):
        return {name: change(value) for name, value in example.items()}
    if isinstance(example, list | tuple):
        return tuple(change(value) for value in example)
    return change(example)


def _is_annotation(argument: Any) -> bool:
    is_list = isinstance(argument, list) and bool(argument)
    return is_list and all(isinstance(entry, dict) for entry in argument)


def called(model: nn.Module, inputs: Any) -> Any:
    """Call the model on its inputs."""
    if isinstance(inputs, dict):
        try:
            inspect.signature(model.forward).bind(**inputs)
        except TypeError:
            return model(inputs)
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)
