"""A network of somebody's own, for the examples: nothing here knows of pruning."""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block of two convs."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(inputs, width, 1, stride, bias=False) if stride > 1 else None

    def forward(self, maps: Tensor) -> Tensor:
        skip = maps if self.shortcut is None else self.shortcut(maps)
        maps = torch.relu(self.norm1(self.conv1(maps)))
        return torch.relu(self.norm2(self.conv2(maps)) + skip)


class MyNet(nn.Module):
    """Three stages of blocks, for images [N, 3, H, W]."""

    def __init__(self, num_classes: int = 10, width: int = 16):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1), nn.ReLU())
        shapes = ((width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2))
        self.blocks = nn.Sequential(*(Block(*shape) for shape in shapes))
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))
