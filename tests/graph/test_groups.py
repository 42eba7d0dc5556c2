"""Groups: every filter is in exactly one, with exactly the filters that share its fate."""

import pytest
import torch
import torch.nn as nn

from models.registry import build_model, example_images
from tests.idioms import SelfAttention
from tests.networks import (
    STEPS,
    Attention,
    Chain,
    ChannelsLast,
    Concat,
    Depthwise,
    Gate,
    Grouped,
    PaddedResidual,
    PixelShuffled,
    Residual,
    Shared,
    Shuffle,
    SpatialGate,
)
from utils.graph.channel_graph import trace_channels
from utils.graph.groups import ChannelGroup, channel_groups, describe

IMAGE = torch.zeros(1, 3, 8, 8)


def groups_of(steps, *, across_sums: bool) -> dict[tuple[str, ...], ChannelGroup]:
    """Return {layers: group} of a chain of the steps."""
    graph = trace_channels(Chain(steps), IMAGE)
    return {group.layers: group for group in channel_groups(graph, across_sums=across_sums)}


def one_by_one(layer: str, count: int) -> tuple:
    """Return the channels of a group of a single layer."""
    return tuple(((layer, i),) for i in range(count))


def pairs(left: str, right: str, count: int) -> tuple:
    """Return the channels of a group that ties filter i of one layer to filter i of the other."""
    return tuple(((left, i), (right, i)) for i in range(count))


@pytest.mark.parametrize("across_sums", [False, True])
@pytest.mark.parametrize("step", [*STEPS, PixelShuffled])
def test_groups_hold_every_filter_exactly_once(step, across_sums):
    graph = trace_channels(Chain([step, Residual, step]), IMAGE)
    groups = channel_groups(graph, across_sums=across_sums)
    members = [filter for group in groups for channel in group.channels for filter in channel]
    everything = [(name, i) for name, count in graph.filters().items() for i in range(count)]
    assert sorted(members) == sorted(everything)
    for group in groups:  # the same layers run through every channel of a group
        assert all({layer for layer, _ in channel} == {*group.layers} for channel in group.channels)


def test_a_depthwise_conv_is_tied_to_what_it_reads():
    groups = groups_of([Depthwise], across_sums=False)
    tied = groups["stem", "steps.0.depthwise"]
    assert tied.channels[3] == (
        ("stem", 3),
        ("steps.0.depthwise", 6),
        ("steps.0.depthwise", 7),
    )
    assert groups["steps.0.pointwise",].channels == one_by_one("steps.0.pointwise", 8)


def test_a_grouped_conv_is_tied_block_by_block():
    groups = groups_of([Grouped], across_sums=False)
    first, second = groups["stem", "steps.0.conv"].channels
    assert set(first) == {(layer, i) for layer in ("stem", "steps.0.conv") for i in range(4)}
    assert set(second) == {(layer, i) for layer in ("stem", "steps.0.conv") for i in range(4, 8)}


def test_squeeze_and_excite_ties_the_gate_to_what_it_scales():
    groups = groups_of([Gate], across_sums=False)
    assert groups["stem", "steps.0.excite"].channels == pairs("stem", "steps.0.excite", 8)
    assert groups["steps.0.squeeze",].channels == one_by_one("steps.0.squeeze", 3)


def test_a_residual_stream_is_tied_only_across_sums():
    alone = groups_of([Residual, Residual], across_sums=False)
    assert all(len(layers) == 1 for layers in alone)
    tied = groups_of([Residual, Residual], across_sums=True)
    stream = ("stem", "steps.0.conv2", "steps.1.conv2")
    assert list(tied) == [stream, ("steps.0.conv1",), ("steps.1.conv1",), ("head",)]
    assert tied[stream].channels[5] == tuple((layer, 5) for layer in stream)


def test_a_zero_padded_shortcut_ties_what_it_carries_and_leaves_the_rest():
    groups = groups_of([PaddedResidual], across_sums=True)
    conv = "steps.0.conv"
    assert groups["stem", conv].channels == tuple((("stem", i), (conv, i + 2)) for i in range(8))
    assert groups[conv,].channels == tuple(((conv, i),) for i in (0, 1, 10, 11))


@pytest.mark.parametrize("across_sums", [False, True])
def test_concatenation_ties_nothing(across_sums):
    groups = groups_of([Concat, Concat], across_sums=across_sums)
    assert list(groups) == [("stem",), ("steps.0.conv",), ("steps.1.conv",), ("head",)]


def test_a_shuffle_is_followed_position_by_position():
    groups = groups_of([Shuffle, Depthwise], across_sums=False)
    depthwise = "steps.1.depthwise"
    for half in range(4):  # left and right halves are interleaved: channels 2i and 2i + 1
        left = groups["stem", depthwise].channels[half]
        assert left == (("stem", half), (depthwise, 4 * half), (depthwise, 4 * half + 1))
        right = groups["steps.0.conv", depthwise].channels[half]
        assert right == (
            ("steps.0.conv", half),
            (depthwise, 4 * half + 2),
            (depthwise, 4 * half + 3),
        )
    assert groups["stem",].channels == tuple((("stem", i),) for i in range(4, 8))


def test_a_layer_that_is_called_twice_is_one_layer():
    groups = groups_of([Shared], across_sums=False)
    assert groups["steps.0.conv",].channels == one_by_one("steps.0.conv", 8)


def test_what_a_softmax_reads_is_read_whole():
    groups = groups_of([Attention], across_sums=False)
    assert groups["steps.0.conv",].read_whole_by == ("softmax in steps.0",)


def test_a_gate_that_is_spread_over_all_channels_ties_none_of_them():
    groups = groups_of([SpatialGate], across_sums=False)
    assert groups["stem",].channels == one_by_one("stem", 8)
    assert groups["steps.0.conv",].channels == one_by_one("steps.0.conv", 1)


class Scaled(nn.Module):
    """A residual branch that is scaled by a parameter."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.scale * self.conv(x)).mean((2, 3)))


def test_a_constant_factor_does_not_break_the_tie():
    stream, _ = channel_groups(trace_channels(Scaled(), IMAGE), across_sums=True)
    assert stream.channels == pairs("stem", "conv", 4)


def test_a_layer_norm_ties_no_channels_since_zeros_can_be_left_out():
    groups = groups_of([ChannelsLast], across_sums=False)
    tied = groups["stem", "steps.0.depthwise"]
    assert tied.channels == pairs("stem", "steps.0.depthwise", 8)
    assert tied.read_whole_by == ()


def test_a_zero_padded_stream_is_three_groups():
    graph = trace_channels(build_model("resnet_20"), example_images("resnet_20"))
    groups = channel_groups(graph, across_sums=True)
    streams = [group for group in groups if len(group.layers) > 1]
    assert [len(group.channels) for group in streams] == [16, 16, 32]
    assert [len(group.layers) for group in streams] == [10, 6, 3]


@pytest.mark.parametrize("across_sums", [False, True])
def test_only_the_classifier_is_protected(across_sums):
    groups = groups_of([Residual, Gate, Shuffle], across_sums=across_sums)
    assert [group.layers for group in groups.values() if group.protected] == [("head",)]


class TwoHeads(nn.Module):
    """A residual stream that is an output, beside a classifier."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        features = self.stem(x) + self.conv(self.stem(x).relu())
        return features, self.head(features.mean((2, 3)))


def test_whatever_reaches_the_output_is_protected():
    groups = channel_groups(trace_channels(TwoHeads(), IMAGE), across_sums=True)
    assert all(group.protected for group in groups)


class Tapped(nn.Module):
    """A stream that is an output where it begins; a branch is added to it behind that."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.other, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        return x, self.head((x + self.conv(x.relu()) + self.other(x)).mean((2, 3)))


def test_what_is_added_to_a_protected_layer_may_go_without_it():
    graph = trace_channels(Tapped(), IMAGE)
    groups = channel_groups(graph, across_sums=True)
    assert [(x.layers, x.protected) for x in groups] == [
        (("stem",), True),
        (("conv",), False),
        (("other",), False),
        (("head",), True),
    ]


class Rolled(nn.Module):
    """A sum of channels and their neighbours, which ties all of them."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        x = self.conv(x)
        return self.head((x + x.roll(1, 1)).mean((2, 3)))


def test_a_sum_that_would_leave_all_or_none_ties_nothing():
    for across_sums in (False, True):
        groups = channel_groups(trace_channels(Rolled(), IMAGE), across_sums=across_sums)
        assert groups[0].channels == one_by_one("conv", 4)


def test_what_is_not_followed_is_told_with_the_share_that_can_still_go():
    graph = trace_channels(Chain([SelfAttention, Residual]), IMAGE)
    lines = describe(channel_groups(graph, across_sums=False)).splitlines()
    (qkv,) = [line for line in lines if line.startswith("steps.0.qkv")]
    assert qkv.startswith("steps.0.qkv: 24 channels; protected: is read by what is not followed")
    assert "scaleddotproductattention in steps.0" in qkv
    assert lines[-1] == "36 of 65 filters (55%) are in groups that can shrink"


def test_groups_are_described_in_a_line_each():
    lines = describe(groups_of([Attention], across_sums=False).values()).splitlines()
    assert lines == [
        "stem: 8 channels",
        "steps.0.conv: 8 channels; read whole by softmax in steps.0",
        "head: 5 channels; protected: reaches the output",
    ]
