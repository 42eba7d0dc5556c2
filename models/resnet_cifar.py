"""ResNets for 32 x 32 images (He et al., 2016, section 4.2) with parameter-free shortcuts.

Depth 6n + 2: a stem, then three stages of n blocks with 16, 32 and 64 channels. Where the width
doubles, the shortcut drops every other pixel and pads the missing channels with zeros ("option A").
"""

from collections.abc import Callable

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from models.initial_weights import draw_convs

STAGE_WIDTHS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """Halve height and width and zero-pad the channels: [N, C, H, W] -> [N, C + 2p, H/2, W/2]."""

    def __init__(self, padding: int):
        super().__init__()
        self.padding = padding

    def forward(self, maps: Tensor) -> Tensor:
        return F.pad(maps[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


class BasicBlock(nn.Module):
    """Two 3 x 3 convs and a shortcut: relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU(inplace=True)
        widens = stride != 1 or in_channels != channels
        self.shortcut = PaddedShortcut((channels - in_channels) // 2) if widens else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        residual = self.relu1(self.bn1(self.conv1(maps)))
        residual = self.bn2(self.conv2(residual))
        return self.relu2(residual + self.shortcut(maps))


class ResNetCifar(nn.Module):
    """CIFAR ResNet of depth 6n + 2: [N, 3, 32, 32] -> [N, num_classes].

    The official networks disagree on the classifier's name (`fc` in ResNet-56, `linear` in
    ResNet-110), hence `head`.
    """

    def __init__(self, depth: int, num_classes: int, head: str):
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, STAGE_WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STAGE_WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(STAGE_WIDTHS[0], STAGE_WIDTHS[0], 1, blocks)
        self.layer2 = _stage(STAGE_WIDTHS[0], STAGE_WIDTHS[1], 2, blocks)
        self.layer3 = _stage(STAGE_WIDTHS[1], STAGE_WIDTHS[2], 2, blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.head = head
        self.add_module(head, nn.Linear(STAGE_WIDTHS[2], num_classes))
        draw_convs(self)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.bn1(self.conv1(images)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        return self.get_submodule(self.head)(self.avgpool(maps).flatten(1))


def _stage(in_channels: int, channels: int, stride: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


def resnet_cifar(depth: int, head: str = "linear") -> Callable[[int], ResNetCifar]:
    """Return the builder (num_classes -> network) of the CIFAR ResNet of `depth` = 6n + 2."""

    def build(num_classes: int) -> ResNetCifar:
        return ResNetCifar(depth, num_classes, head)

    return build
