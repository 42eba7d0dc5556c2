"""Networks of a user's own, tiny: a file of code, and what the commands need to know of it."""

NET = '''
"""A residual network of somebody's own."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(inputs, width, 1, stride, bias=False) if stride > 1 else None

    def forward(self, maps):
        skip = maps if self.shortcut is None else self.shortcut(maps)
        maps = torch.relu(self.norm1(self.conv1(maps)))
        return torch.relu(self.norm2(self.conv2(maps)) + skip)


class MyNet(nn.Module):
    def __init__(self, num_classes=10, width=8, channels=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU())
        self.blocks = nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2))
        self.hidden = nn.Linear(2 * width, 2 * width)
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, images):
        maps = self.blocks(self.stem(images))
        return self.head(torch.relu(self.hidden(maps.mean((2, 3)))))


class Barrier(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, images):
        return self.conv(images).mean((2, 3))


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(5, 10)

    def forward(self, images):
        maps = self.second(self.first(images))
        return self.head(torch.fft.rfft(maps, dim=1).abs().mean((2, 3)))


def raises():
    raise RuntimeError("no such data set")


def nothing():
    return 3
'''
