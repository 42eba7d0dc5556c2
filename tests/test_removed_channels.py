"""Which channels go and which stay, told by the weights of the smaller network."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from utils.library import ChannelMasks, remove_filters, trace_channels

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Separable(nn.Module):
    """A conv, a depthwise conv of two filters a channel, and a pointwise conv."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.depthwise = nn.Conv2d(4, 8, 3, groups=4)
        self.norm = nn.BatchNorm2d(8)
        self.pointwise = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(F.relu(self.norm(self.depthwise(F.relu(self.conv(x))))))


class Joined(nn.Module):
    """Two convs whose channels are joined and mixed, read by a third."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3)
        self.right = nn.Conv2d(3, 4, 3)
        self.out = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.mixed(self.left(x), self.right(x))))


class Sliced(Joined):
    """Mixed by slices."""

    def mixed(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.cat([right[:, :1], left[:, :3], right[:, 1:], left[:, 3:]], 1)


class Shuffled(Joined):
    """Mixed by a channel shuffle in four groups."""

    def mixed(self, left: Tensor, right: Tensor) -> Tensor:
        joined = torch.cat([left, right], 1)
        split = joined.view(joined.size(0), 4, 2, joined.size(2), joined.size(3))
        return split.transpose(1, 2).flatten(1, 2)


class Interleaved(Joined):
    """Mixed in turn, out of a stack of both."""

    def mixed(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.stack([left, right], 2).flatten(1, 2)


class Padded(nn.Module):
    """A narrow conv, padded to a wide one's width with unequal numbers of zeros, and their sum."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.pads = (0, 0, 0, 0, before, after)
        self.narrow = nn.Conv2d(3, 4, 3)
        self.wide = nn.Conv2d(3, 4 + before + after, 3)
        self.out = nn.Conv2d(4 + before + after, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.wide(x) + F.pad(self.narrow(x), self.pads)))


def masked_and_removed(model: nn.Module, **gone: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    """The model without the filters `gone` of each conv, by masks and by removal; float64, eval."""
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    masks = {}
    for conv, filters in gone.items():
        masks[conv] = torch.ones(model.get_submodule(conv).out_channels, dtype=torch.bool)
        masks[conv][list(filters)] = False
    masked = copy.deepcopy(model).double().eval()
    graph = trace_channels(masked, IMAGES[:1])
    ChannelMasks(masked, graph, masks).apply()
    return masked, remove_filters(masked, graph, masks)


def test_a_depthwise_filter_goes_with_the_channel_that_it_reads():
    masked, removed = masked_and_removed(Separable(), conv=(1, 2))
    stay, zero = [0, 1, 6, 7], [2, 3, 4, 5]  # channel i is read by filters 2i and 2i + 1
    for layer in (masked.depthwise, masked.norm):
        assert not layer.weight[zero].any() and not layer.bias[zero].any()
        assert layer.weight[stay].all() and layer.bias[stay].all()
    torch.testing.assert_close(removed(IMAGES), masked(IMAGES))
    assert torch.equal(removed.conv.weight, masked.conv.weight[[0, 3]])
    assert torch.equal(removed.depthwise.weight, masked.depthwise.weight[stay])
    assert torch.equal(removed.pointwise.weight, masked.pointwise.weight[:, stay])


@pytest.mark.parametrize(
    "gone",
    [{"left": (0, 2)}, {"right": (0,)}, {"left": (0, 2), "right": (2,)}, {"left": (0, 1, 2)}],
    ids=str,
)
@pytest.mark.parametrize("network", [Sliced, Shuffled, Interleaved])
def test_channels_of_two_convs_come_in_the_order_that_the_code_mixes_them_in(network, gone):
    masked, removed = masked_and_removed(network(), **gone)
    torch.testing.assert_close(removed(IMAGES), masked(IMAGES))
    for conv in ("left", "right"):
        whole, small = masked.get_submodule(conv).weight, removed.get_submodule(conv).weight
        stay = [i for i in range(len(whole)) if i not in gone.get(conv, ())]
        assert torch.equal(small, whole[stay]) or torch.equal(small, whole)
    if network is Sliced:  # views need channels, in equal numbers, that slices can do without
        assert removed.out.weight.size(1) == 8 - sum(map(len, gone.values()))


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 2), (0, 2), (2, 0)])
def test_a_padded_shortcut_meets_the_channels_that_it_met(before, after):
    masked, removed = masked_and_removed(Padded(before, after), narrow=(1, 2), wide=(0, 2, 4))
    torch.testing.assert_close(removed(IMAGES), masked(IMAGES))
