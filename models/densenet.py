"""DenseNet for 32 x 32 images (Huang et al., 2017, section 4.2), without bottleneck or compression.

Depth 3n + 4: a stem, then three stages of n dense layers, each of which adds its 12 channels behind
those it read. Between stages a transition keeps the width and halves the maps.
"""

import torch
import torch.nn as nn
from torch import Tensor

from models.initial_weights import draw_convs

STEM_WIDTH, GROWTH = 24, 12


class DenseLayer(nn.Module):
    """The input and a conv of it, side by side: [N, C, H, W] -> [N, C + 12, H, W]."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, GROWTH, 3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([maps, self.conv1(self.relu(self.bn1(maps)))], 1)


class Transition(nn.Module):
    """A 1 x 1 conv and average pooling: [N, C, H, W] -> [N, C, H/2, W/2]."""

    def __init__(self, channels: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.avgpool = nn.AvgPool2d(2)

    def forward(self, maps: Tensor) -> Tensor:
        return self.avgpool(self.conv1(self.relu(self.bn1(maps))))


class DenseNet(nn.Module):
    """CIFAR DenseNet of depth 3n + 4: [N, 3, 32, 32] -> [N, num_classes]."""

    def __init__(self, depth: int, num_classes: int):
        super().__init__()
        layers = (depth - 4) // 3
        widths = [STEM_WIDTH + stage * layers * GROWTH for stage in range(4)]  # 40: 24 168 312 456
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.dense1 = _stage(widths[0], layers)
        self.trans1 = Transition(widths[1])
        self.dense2 = _stage(widths[1], layers)
        self.trans2 = Transition(widths[2])
        self.dense3 = _stage(widths[2], layers)
        self.bn = nn.BatchNorm2d(widths[3])
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[3], num_classes)
        draw_convs(self)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.trans1(self.dense1(self.conv1(images)))
        maps = self.dense3(self.trans2(self.dense2(maps)))
        return self.fc(self.avgpool(self.relu(self.bn(maps))).flatten(1))


def _stage(in_channels: int, layers: int) -> nn.Sequential:
    return nn.Sequential(*(DenseLayer(in_channels + i * GROWTH) for i in range(layers)))


def densenet_40(num_classes: int) -> DenseNet:
    """Build DenseNet-40 with growth rate 12: 282.9 M MACs, 1.06 M parameters."""
    return DenseNet(40, num_classes)
