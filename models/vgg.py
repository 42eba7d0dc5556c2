"""VGG-16 with batch norm for 32 x 32 images, as HRank prunes it.

The state-dict names are the official ones: layers of `features` carry their index in the
configuration list, pools included (`conv0, conv1, pool2, conv3, ...`).
"""

from collections import OrderedDict

import torch.nn as nn
from torch import Tensor

CONFIGURATION = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)


class VGG(nn.Module):
    """13 convs in five stages, then two linear layers: [N, 3, 32, 32] -> [N, num_classes]."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.features = nn.Sequential(_feature_layers())
        self.avgpool = nn.AvgPool2d(2)
        self.classifier = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(512, 512),
                norm1=nn.BatchNorm1d(512),
                relu1=nn.ReLU(inplace=True),
                linear2=nn.Linear(512, num_classes),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        maps = self.avgpool(self.features(images))  # [N, 512, 1, 1]
        return self.classifier(maps.flatten(1))


def _feature_layers() -> "OrderedDict[str, nn.Module]":
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    in_channels = 3
    for i, width in enumerate(CONFIGURATION):
        if width == "M":
            layers[f"pool{i}"] = nn.MaxPool2d(2, 2)
            continue
        layers[f"conv{i}"] = nn.Conv2d(in_channels, width, 3, padding=1)
        layers[f"norm{i}"] = nn.BatchNorm2d(width)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        in_channels = width
    return layers


def vgg_16_bn(num_classes: int) -> VGG:
    """Build VGG-16-BN for CIFAR: 313.5 M MACs, 14.99 M parameters."""
    return VGG(num_classes)
