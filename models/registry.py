"""The architectures this repository knows by name; their code is imported when one is built."""

import importlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # names are told before torch is imported, which takes seconds
    import torch.nn as nn
    from torch import Tensor


@dataclass(frozen=True)
class Architecture:
    """A builder (num_classes -> network), the image size it reads and its default classes.

    `own_keys` spells the keys of a checkpoint as this repository does: {its key: our key}.
    """

    build: Callable[[int], "nn.Module"]
    image_size: int = 32
    num_classes: int = 10
    own_keys: Callable[[Collection[str]], dict[str, str]] = lambda keys: {key: key for key in keys}


def _of(module: str, function: str) -> Callable[..., Any]:
    """Return a function of a module of this folder, which its first call imports."""
    return lambda *given: getattr(importlib.import_module(f"models.{module}"), function)(*given)


def _resnet(depth: int, head: str = "linear") -> Architecture:
    made = _of("resnet_cifar", "resnet_cifar")
    return Architecture(lambda num_classes: made(depth, head)(num_classes))


ARCHITECTURES: dict[str, Architecture] = {
    "vgg_16_bn": Architecture(_of("vgg", "vgg_16_bn")),
    "resnet_8": _resnet(8),  # for the demo and the tests: trains in seconds
    "resnet_20": _resnet(20),
    "resnet_32": _resnet(32),
    "resnet_44": _resnet(44),
    "resnet_56": _resnet(56, head="fc"),
    "resnet_110": _resnet(110),
    "densenet_40": Architecture(_of("densenet", "densenet_40")),
    "googlenet": Architecture(_of("googlenet", "googlenet")),
    "resnet_50": Architecture(_of("resnet_imagenet", "resnet_50"), 224, 1000),
    "mobilenet_v1": Architecture(_of("mobilenet", "mobilenet_v1"), 224, 1000),
    "mobilenet_v2": Architecture(
        _of("mobilenet", "mobilenet_v2"), 224, 1000, _of("mobilenet", "flat_keys")
    ),
}


def architecture(name: str) -> Architecture:
    """Return the registered architecture.

    Raises:
        ValueError: if `name` is unknown.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown arch {name!r}: expected one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def build_model(name: str, num_classes: int | None = None) -> "nn.Module":
    """Build a network with fresh weights; `num_classes` defaults to the architecture's own."""
    found = architecture(name)
    return found.build(num_classes or found.num_classes)


def example_images(name: str) -> "Tensor":
    """Return one black image [1, 3, S, S] of the size the architecture reads."""
    import torch

    size = architecture(name).image_size
    return torch.zeros(1, 3, size, size)
