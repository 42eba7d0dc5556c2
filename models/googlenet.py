"""GoogLeNet for 32 x 32 images (Szegedy et al., 2015), as HRank prunes it.

The stem is one 3 x 3 conv, every conv has a bias and a batch norm, two 3 x 3 convs stand for the
5 x 5 one, and there are no auxiliary classifiers.
"""

import torch
import torch.nn as nn
from torch import Tensor

from models.initial_weights import draw_convs

STEM_WIDTH = 192

# Filters of each block: 1x1; 3x3 (reduce, conv); 5x5 (reduce, convs); behind the pool.
INCEPTIONS = {
    "inception_a3": (64, 96, 128, 16, 32, 32),
    "inception_b3": (128, 128, 192, 32, 96, 64),
    "inception_a4": (192, 96, 208, 16, 48, 64),
    "inception_b4": (160, 112, 224, 24, 64, 64),
    "inception_c4": (128, 128, 256, 24, 64, 64),
    "inception_d4": (112, 144, 288, 32, 64, 64),
    "inception_e4": (256, 160, 320, 32, 128, 128),
    "inception_a5": (256, 160, 320, 32, 128, 128),
    "inception_b5": (384, 192, 384, 48, 128, 128),
}


class Inception(nn.Module):
    """Four branches side by side: [N, C, H, W] -> [N, n1x1 + n3x3 + n5x5 + pool_planes, H, W]."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]):
        super().__init__()
        n1x1, reduce3x3, n3x3, reduce5x5, n5x5, pool_planes = widths
        self.branch1x1 = nn.Sequential(*_unit(in_channels, n1x1, 1))
        self.branch3x3 = nn.Sequential(
            *_unit(in_channels, reduce3x3, 1), *_unit(reduce3x3, n3x3, 3)
        )
        self.branch5x5 = nn.Sequential(
            *_unit(in_channels, reduce5x5, 1), *_unit(reduce5x5, n5x5, 3), *_unit(n5x5, n5x5, 3)
        )
        self.branch_pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), *_unit(in_channels, pool_planes, 1)
        )
        self.out_channels = n1x1 + n3x3 + n5x5 + pool_planes

    def forward(self, maps: Tensor) -> Tensor:
        branches = (self.branch1x1, self.branch3x3, self.branch5x5, self.branch_pool)
        return torch.cat([branch(maps) for branch in branches], 1)


class GoogLeNet(nn.Module):
    """A stem and nine inception blocks in three stages: [N, 3, 32, 32] -> [N, num_classes]."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.pre_layers = nn.Sequential(*_unit(3, STEM_WIDTH, 3))
        channels = STEM_WIDTH
        for name, widths in INCEPTIONS.items():
            block = Inception(channels, widths)
            self.add_module(name, block)
            channels = block.out_channels
        self.maxpool1 = nn.MaxPool2d(3, stride=2, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, padding=1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, num_classes)
        draw_convs(self)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.inception_b3(self.inception_a3(self.pre_layers(images)))
        maps = self.inception_b4(self.inception_a4(self.maxpool1(maps)))
        maps = self.inception_e4(self.inception_d4(self.inception_c4(maps)))
        maps = self.inception_b5(self.inception_a5(self.maxpool2(maps)))
        return self.linear(self.avgpool(maps).flatten(1))


def _unit(in_channels: int, channels: int, kernel: int) -> tuple[nn.Module, ...]:
    """Return conv, norm and ReLU; the maps keep their size."""
    conv = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2)
    return conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def googlenet(num_classes: int) -> GoogLeNet:
    """Build GoogLeNet for CIFAR: 1,521.8 M MACs, 6.17 M parameters."""
    return GoogLeNet(num_classes)
