"""ResNets with bottleneck blocks for 224 x 224 images (He et al., 2016, section 4.1).

Names and layout are torchvision's: the 3 x 3 conv takes the stride, and where a stage begins, a
1 x 1 conv with a norm makes the shortcut fit.
"""

import torch.nn as nn
from torch import Tensor

from models.initial_weights import draw_convs

STEM_WIDTH, EXPANSION = 64, 4


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convs and a shortcut: [N, C, H, W] -> [N, 4 width, H/s, W/s]."""

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        channels = EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.relu3 = nn.ReLU(inplace=True)
        self.downsample = nn.Identity()
        if stride != 1 or in_channels != channels:
            conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, maps: Tensor) -> Tensor:
        residual = self.relu1(self.bn1(self.conv1(maps)))
        residual = self.relu2(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return self.relu3(residual + self.downsample(maps))


class ResNetImageNet(nn.Module):
    """ImageNet ResNet of four stages of `blocks` blocks: [N, 3, 224, 224] -> [N, num_classes]."""

    def __init__(self, blocks: tuple[int, int, int, int], num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM_WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_WIDTH)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(STEM_WIDTH, 64, 1, blocks[0])
        self.layer2 = _stage(EXPANSION * 64, 128, 2, blocks[1])
        self.layer3 = _stage(EXPANSION * 128, 256, 2, blocks[2])
        self.layer4 = _stage(EXPANSION * 256, 512, 2, blocks[3])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(EXPANSION * 512, num_classes)
        draw_convs(self)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # [N, 64, H/4, W/4]
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))  # [N, 2048, H/32, W/32]
        return self.fc(self.avgpool(maps).flatten(1))


def _stage(in_channels: int, width: int, stride: int, blocks: int) -> nn.Sequential:
    first = Bottleneck(in_channels, width, stride)
    others = (Bottleneck(EXPANSION * width, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)


def resnet_50(num_classes: int) -> ResNetImageNet:
    """Build ResNet-50: 4,089.2 M MACs, 25.56 M parameters."""
    return ResNetImageNet((3, 4, 6, 3), num_classes)
