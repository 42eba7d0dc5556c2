"""MobileNets for 224 x 224 images: V1 (Howard et al., 2017) and V2 (Sandler et al., 2018).

The state-dict names are HRankPlus's: conv, norm and activation follow each other in one list. V2 in
torchvision wraps them by threes; `flat_keys` unwraps the names.
"""

import re
from collections.abc import Collection

import torch.nn as nn
from torch import Tensor

from models.initial_weights import draw_convs

STEM_WIDTH, LAST_WIDTH = 32, 1280  # the last one is V2's

# V1: (channels, stride) of each depthwise separable conv.
SEPARABLE = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip

# V2: (expansion, channels, blocks, stride of the first block) of each stage.
STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
    (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip

# V2: where a block's conv and norm are in torchvision -> where they are here.
_EXPANDED = {"0.0": 0, "0.1": 1, "1.0": 3, "1.1": 4, "2": 6, "3": 7}
_UNEXPANDED = {"0.0": 0, "0.1": 1, "1": 3, "2": 4}
_BLOCK_KEY = re.compile(r"features\.(?P<block>\d+)\.conv\.(?P<place>\d(\.\d)?)\.(?P<tensor>\w+)")


class MobileNetV1(nn.Module):
    """A stem and thirteen depthwise separable convs: [N, 3, 224, 224] -> [N, num_classes]."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1 = nn.Sequential(*_unit(3, STEM_WIDTH, 3, nn.ReLU, stride=2))
        self.features = nn.Sequential()
        in_channels = STEM_WIDTH
        for channels, stride in SEPARABLE:
            depthwise = _unit(
                in_channels, in_channels, 3, nn.ReLU, stride=stride, groups=in_channels
            )
            pointwise = _unit(in_channels, channels, 1, nn.ReLU)
            self.features.append(nn.Sequential(*depthwise, *pointwise))
            in_channels = channels
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(in_channels, num_classes))
        draw_convs(self)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(self.conv1(images))  # [N, 1024, H/32, W/32]
        return self.classifier(self.avgpool(maps).flatten(1))


class InvertedResidual(nn.Module):
    """A wide depthwise conv between 1 x 1 convs, the last one without activation.

    [N, C, H, W] -> [N, channels, H/s, W/s]; the input is added where the shapes agree.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int):
        super().__init__()
        width = expansion * in_channels
        expand = _unit(in_channels, width, 1, nn.ReLU6) if expansion > 1 else ()
        depthwise = _unit(width, width, 3, nn.ReLU6, stride=stride, groups=width)
        project = nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv = nn.Sequential(*expand, *depthwise, *project)
        self.adds_input = stride == 1 and in_channels == channels

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.conv(maps) if self.adds_input else self.conv(maps)


class MobileNetV2(nn.Module):
    """A stem, seventeen inverted residuals, a 1 x 1 conv: [N, 3, 224, 224] -> [N, num_classes]."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.features = nn.Sequential(nn.Sequential(*_unit(3, STEM_WIDTH, 3, nn.ReLU6, stride=2)))
        in_channels = STEM_WIDTH
        for expansion, channels, blocks, first_stride in STAGES:
            for stride in (first_stride, *[1] * (blocks - 1)):
                self.features.append(InvertedResidual(in_channels, channels, stride, expansion))
                in_channels = channels
        self.features.append(nn.Sequential(*_unit(in_channels, LAST_WIDTH, 1, nn.ReLU6)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(LAST_WIDTH, num_classes))
        draw_convs(self)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images)  # [N, 1280, H/32, W/32]
        return self.classifier(self.avgpool(maps).flatten(1))


def _unit(
    in_channels: int,
    channels: int,
    kernel: int,
    activation: type[nn.ReLU | nn.ReLU6],
    *,
    stride: int = 1,
    groups: int = 1,
) -> tuple[nn.Module, ...]:
    """Return conv, norm and activation."""
    conv = nn.Conv2d(
        in_channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return conv, nn.BatchNorm2d(channels), activation(inplace=True)


def mobilenet_v1(num_classes: int) -> MobileNetV1:
    """Build MobileNetV1: 568.7 M MACs, 4.23 M parameters."""
    return MobileNetV1(num_classes)


def mobilenet_v2(num_classes: int) -> MobileNetV2:
    """Build MobileNetV2: 300.8 M MACs, 3.50 M parameters."""
    return MobileNetV2(num_classes)


def flat_keys(keys: Collection[str]) -> dict[str, str]:
    """Return {key: our name for it} for the keys of a MobileNetV2 checkpoint.

    Torchvision's, such as `features.2.conv.1.0.weight`, and ours: one key alone does not tell.
    """
    wrapped = "features.1.conv.0.0.weight" in keys
    return {key: _flat_key(key) if wrapped else key for key in keys}


def _flat_key(key: str) -> str:
    match = _BLOCK_KEY.fullmatch(key)
    places = _UNEXPANDED if match and match["block"] == "1" else _EXPANDED
    if match is None or match["place"] not in places:
        return key
    return f"features.{match['block']}.conv.{places[match['place']]}.{match['tensor']}"
