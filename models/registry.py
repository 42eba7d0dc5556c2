"""The architectures this repository knows by name."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from models.densenet import densenet_40
from models.googlenet import googlenet
from models.mobilenet import flat_keys, mobilenet_v1, mobilenet_v2
from models.resnet_cifar import resnet_cifar
from models.resnet_imagenet import resnet_50
from models.vgg import vgg_16_bn


@dataclass(frozen=True)
class Architecture:
    """A builder (num_classes -> network), the image size it reads and its default classes.

    `own_keys` spells the keys of a checkpoint as this repository does: {its key: our key}.
    """

    build: Callable[[int], nn.Module]
    image_size: int = 32
    num_classes: int = 10
    own_keys: Callable[[Collection[str]], dict[str, str]] = lambda keys: {key: key for key in keys}


ARCHITECTURES: dict[str, Architecture] = {
    "vgg_16_bn": Architecture(vgg_16_bn),
    "resnet_8": Architecture(resnet_cifar(8)),  # for the demo and the tests: trains in seconds
    "resnet_20": Architecture(resnet_cifar(20)),
    "resnet_32": Architecture(resnet_cifar(32)),
    "resnet_44": Architecture(resnet_cifar(44)),
    "resnet_56": Architecture(resnet_cifar(56, head="fc")),
    "resnet_110": Architecture(resnet_cifar(110)),
    "densenet_40": Architecture(densenet_40),
    "googlenet": Architecture(googlenet),
    "resnet_50": Architecture(resnet_50, 224, 1000),
    "mobilenet_v1": Architecture(mobilenet_v1, 224, 1000),
    "mobilenet_v2": Architecture(mobilenet_v2, 224, 1000, flat_keys),
}


def architecture(name: str) -> Architecture:
    """Return the registered architecture.

    Raises:
        ValueError: if `name` is unknown.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown arch {name!r}: expected one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def build_model(name: str, num_classes: int | None = None) -> nn.Module:
    """Build a network with fresh weights; `num_classes` defaults to the architecture's own."""
    found = architecture(name)
    return found.build(num_classes or found.num_classes)


def example_images(name: str) -> Tensor:
    """Return one black image [1, 3, S, S] of the size the architecture reads."""
    size = architecture(name).image_size
    return torch.zeros(1, 3, size, size)
