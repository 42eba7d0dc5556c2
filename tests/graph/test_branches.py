"""Branches are what a sum can do without, and a network without them computes what it must."""

import copy

import pytest
import torch
import torchvision.models as library
from torch import nn

from models.registry import build_model, example_images
from tests.networks import (
    Chain,
    ChannelsLast,
    Concat,
    Depthwise,
    Gate,
    PaddedResidual,
    PreActivation,
    Residual,
    Shared,
    randomized,
)
from utils.graph.branches import branches
from utils.graph.channel_graph import trace_channels
from utils.graph.emptied import is_emptied
from utils.metrics.cost import physical_cost
from utils.removal.masks import ChannelMasks
from utils.removal.network_file import load_removed, write_removed
from utils.removal.surgery import remove_filters

IMAGE = torch.zeros(1, 3, 8, 8)


def chain(*steps):
    return lambda: (randomized(Chain(list(steps)), seed=0).float(), IMAGE)


def registered(name):
    return lambda: (randomized(build_model(name), seed=0).float(), example_images(name))


class Pointwise(nn.Module):
    """x + depthwise(pointwise(x)): without either conv there is nothing left of it."""

    def __init__(self, channels):
        super().__init__()
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)

    def forward(self, x):
        return x + self.depthwise(self.pointwise(x))


NETWORKS = {
    "residual": (chain(Residual, Residual), ["steps.0.conv2", "steps.1.conv2"]),
    "pre-activation": (chain(PreActivation, Residual), ["steps.0.conv", "steps.1.conv2"]),
    "a padded shortcut lacks channels": (
        chain(PaddedResidual, Concat, Residual),
        ["steps.2.conv2"],
    ),
    "no sums": (chain(Concat, Depthwise, Gate), []),
    "resnet_8": (registered("resnet_8"), ["layer1.0.conv2"]),
    "gates in its branches, sums in place": (
        lambda: (
            library.RegNet(
                library.regnet.BlockParams([2, 2], [8, 16], [4, 8], [1.0, 1.0], [1, 2], 0.25),
                num_classes=5,
                stem_width=8,
            ),
            torch.zeros(1, 3, 32, 32),
        ),
        [f"trunk_output.block{n}.block{n}-{k}.f.c.0" for n in (1, 2) for k in (0, 1)],
    ),
    "a depthwise conv behind the last filters": (
        chain(Pointwise, Residual),
        ["steps.0.depthwise", "steps.1.conv2"],
    ),
    "convnext": (
        lambda: (
            library.ConvNeXt([library.convnext.CNBlockConfig(8, None, 3)], num_classes=5),
            torch.zeros(1, 3, 32, 32),
        ),
        [f"features.1.{n}.block.5" for n in range(3)],
    ),
}  # fmt: skip


def nothing_of(graph, layers):
    filters = graph.filters()
    return {layer: torch.zeros(filters[layer], dtype=torch.bool) for layer in layers}


def masked(model, graph, masks):
    model = copy.deepcopy(model)
    ChannelMasks(model, graph, masks).apply()
    return model


@pytest.fixture(params=[name for name in NETWORKS if NETWORKS[name][1]])
def case(request):
    make, lasts = NETWORKS[request.param]
    model, example = make()
    return model, example, trace_channels(model, example), lasts


@pytest.mark.parametrize("name", NETWORKS)
def test_branches_are_those_of_residual_blocks(name):
    make, lasts = NETWORKS[name]
    found = branches(trace_channels(*make()))
    assert [branch.last for branch in found] == lasts
    layers = [layer for branch in found for layer in branch.layers]
    assert len(set(layers)) == len(layers) and all(x.last == x.layers[-1] for x in found)


def test_branches_of_a_stream_are_those_between_two_of_its_changes():
    model, example = build_model("resnet_20"), example_images("resnet_20")
    streams = {}
    for branch in branches(trace_channels(model, example)):
        streams.setdefault(branch.stream, set()).add(branch.last.split(".")[0])
    assert list(streams.values()) == [{"layer1"}, {"layer2"}, {"layer3"}]


@pytest.mark.parametrize("align", ["compact", "zeros"])
@pytest.mark.parametrize("train", [False, True])
@torch.no_grad()
def test_a_network_without_branches_computes_what_the_masked_one_does(case, align, train):
    model, example, graph, lasts = case
    for dropped in (lasts, lasts[::2]):
        masks = nothing_of(graph, dropped)
        slim = remove_filters(model, graph, masks, align=align, check=False)
        nets = [net.double().train(train) for net in (masked(model, graph, masks), slim)]
        images = torch.randn(4, *example.shape[1:], dtype=torch.float64)
        for size in (images, torch.cat([images, images], 2)):  # of other sizes, too
            torch.manual_seed(0)
            wanted = nets[0](size)
            torch.manual_seed(0)
            torch.testing.assert_close(nets[1](size), wanted)


def test_nothing_of_a_dropped_branch_is_computed(case):
    model, example, graph, lasts = case
    found = {branch.last: branch for branch in branches(graph)}
    cost = {layer.name: layer.macs for layer in physical_cost(model, example).layers}
    for last in lasts[:2]:
        slim = remove_filters(model, graph, nothing_of(graph, [last]), check=False)
        gone = {x for x in found[last].layers if is_emptied(slim.get_submodule(x))}
        assert last in gone
        left = physical_cost(slim, example)
        assert gone.isdisjoint(layer.name for layer in left.layers)
        if gone == set(found[last].layers):
            assert left.macs == sum(cost.values()) - sum(cost[x] for x in gone)


@torch.no_grad()
def test_what_lost_branches_shrinks_again_and_comes_back_from_its_file(case, tmp_path):
    model, example, graph, lasts = case
    masks = nothing_of(graph, lasts[:1])
    slim = remove_filters(model, graph, masks)
    write_removed(tmp_path / "small.pt", slim, masks)
    again = load_removed(tmp_path / "small.pt", model, example).eval()
    images = torch.randn(2, *example.shape[1:])
    assert torch.equal(again(images), slim.eval()(images))
    second = trace_channels(slim, example)
    rest = lasts[1:] or [name for name in second.filters() if name not in second.protected()][:1]
    more = {layer: torch.arange(second.filters()[layer]) % 2 > 0 for layer in rest}
    both = {**masks, **{layer: torch.arange(graph.filters()[layer]) % 2 > 0 for layer in rest}}
    twice = remove_filters(slim, second, more, check=False)
    at_once = remove_filters(model, graph, both, check=False)
    torch.testing.assert_close(twice.eval()(images), at_once.eval()(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_zeros_lie_as_the_channels_do_that_they_are_added_to():
    model, example = NETWORKS["resnet_8"][0]()
    graph = trace_channels(model, example)
    slim = remove_filters(model, graph, nothing_of(graph, ["layer1.0.conv2"])).eval()
    images = torch.randn(2, 3, 32, 32)
    expected = slim(images)
    last = slim.to(memory_format=torch.channels_last)
    kinds = []
    slim.layer1[0].bn2.register_forward_hook(lambda module, inputs, out: kinds.append(out))
    found = last(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected)
    assert kinds[0].is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        slim(images)
    assert not any(p.requires_grad for p in slim.layer1[0].conv2.parameters())


def test_masks_that_leave_nothing_of_the_input_are_refused():
    for step in (ChannelsLast, Shared):
        model, example = chain(step)()
        graph = trace_channels(model, example)
        with pytest.raises(ValueError, match="'stem' keeps no filter, and nothing goes past it"):
            remove_filters(model, graph, nothing_of(graph, ["stem"]))


def test_a_module_is_of_its_own_class_and_says_that_it_is_empty():
    model, example = chain(Residual)()
    graph = trace_channels(model, example)
    conv = remove_filters(model, graph, nothing_of(graph, ["steps.0.conv2"])).steps[0].conv2
    assert isinstance(conv, nn.Conv2d) and repr(conv) == "EmptiedConv2d(zeros in 1 channels)"
