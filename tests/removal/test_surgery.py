"""Removal: shapes, costs and what becomes of the smaller network."""

import copy
import threading

import pytest
import torch
import torch.nn as nn

from models.registry import build_model, example_images
from tests.networks import (
    Affine,
    Chain,
    Concat,
    Depthwise,
    Gate,
    PaddedResidual,
    Residual,
    Shared,
    random_masks,
    randomized,
)
from utils.graph.aligned import is_aligned
from utils.graph.channel_graph import trace_channels
from utils.metrics.cost import physical_cost
from utils.removal.law import Difference
from utils.removal.masks import ChannelMasks
from utils.removal.surgery import remove_filters

IMAGE = torch.zeros(1, 3, 8, 8)


def removed_from(model, masks):
    return remove_filters(model, trace_channels(model, IMAGE), masks)


def mask(*flags: int) -> torch.Tensor:
    return torch.tensor(flags, dtype=torch.bool)


def test_costs_are_what_a_hand_count_gives():
    model = Chain([Residual])
    masks = {
        "stem": mask(1, 1, 1, 1, 0, 0, 0, 0),
        "steps.0.conv1": mask(1, 1, 0, 0, 0, 0),
        "steps.0.conv2": mask(0, 0, 0, 1, 1, 0, 0, 0),
    }
    layers = {x.name: x for x in physical_cost(removed_from(model, masks), IMAGE).layers}
    assert layers["stem"].macs == 64 * 4 * 3 * 9
    assert layers["steps.0.conv1"].macs == 64 * 2 * 4 * 9
    assert layers["steps.0.conv2"].macs == 64 * 2 * 2 * 9
    assert layers["head"].macs == 5 * 5  # the stream holds channels 0 to 4


def test_a_chain_without_sums_keeps_its_class():
    model = build_model("vgg_16_bn")
    graph = trace_channels(model, example_images("vgg_16_bn"))
    filters = {"features.conv0": 64, "features.conv16": 512, "classifier.linear1": 512}
    removed = remove_filters(model, graph, random_masks(filters, 0.5, seed=0))
    assert type(removed) is type(model)


def test_layers_that_feed_a_sum_write_into_it_at_their_places():
    removed = removed_from(Chain([Residual]), {"steps.0.conv2": mask(1, 0, 0, 0, 0, 0, 0, 1)})
    aligned = {name: m for name, m in removed.named_modules() if is_aligned(m)}
    assert type(removed) is Chain and list(aligned) == ["steps.0.norm2"]
    norm = aligned["steps.0.norm2"]
    assert isinstance(norm, nn.BatchNorm2d) and norm.num_features == 2
    assert str(norm).endswith("places 2 among 8)")
    assert norm(torch.randn(2, 2, 4, 4))[:, 1:7].abs().sum() == 0


@pytest.fixture(scope="module")
def small_resnet():
    model = build_model("resnet_8")
    graph = trace_channels(model, example_images("resnet_8"))
    filters = {name: n for name, n in graph.filters().items() if name != "linear"}
    return remove_filters(model, graph, random_masks(filters, 0.5, seed=1)).eval()


@pytest.mark.parametrize(
    "steps", [(), (Residual, Concat, Depthwise, Gate, Affine, PaddedResidual, Shared)]
)
def test_what_was_removed_shrinks_again_as_if_at_once(steps):
    """Aligned layers are followed as the layers that they were."""
    model = Chain(list(steps)) if steps else build_model("resnet_8")
    model, example = randomized(model, seed=0), IMAGE if steps else example_images("resnet_8")
    graph = trace_channels(model, example)
    free = {name: n for name, n in graph.filters().items() if name not in graph.protected()}
    masks = random_masks(free, 0.4, seed=1)
    once, kept = remove_filters(model, graph, masks), graph.kept_positions(graph.kept(masks))
    again = trace_channels(once, example)
    assert again.protected() == graph.protected()
    more = random_masks({name: again.filters()[name] for name in free}, 0.4, seed=2)
    twice = remove_filters(once, again, more)
    both = {}
    for name, mask in masks.items():
        left = torch.zeros_like(mask).index_copy(0, kept[name][0], more[name])
        both[name] = mask & left
    at_once = remove_filters(model, graph, both)
    sizes = [{name: p.shape for name, p in net.named_parameters()} for net in (twice, at_once)]
    assert sizes[0] == sizes[1]
    images = torch.randn(2, *example.shape[1:], dtype=torch.float64)
    torch.testing.assert_close(twice.eval()(images), at_once.eval()(images))


def test_the_removed_network_can_be_copied_and_filled(small_resnet):
    images = torch.randn(2, 3, 32, 32)
    twin = copy.deepcopy(small_resnet)
    for parameter in twin.parameters():
        torch.nn.init.zeros_(parameter)
    twin.load_state_dict(small_resnet.state_dict())
    assert torch.equal(twin(images), small_resnet(images))


def test_the_removed_network_exports_with_a_dynamic_batch(small_resnet):
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(
        small_resnet, (torch.randn(4, 3, 32, 32),), dynamic_shapes=({0: batch},)
    )
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(exported.module()(images), small_resnet(images))


def test_the_removed_network_trains_on(small_resnet):
    network = copy.deepcopy(small_resnet).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_removing_what_is_zero_already_changes_nothing_in_the_output():
    model = build_model("resnet_8").eval()
    graph = trace_channels(model, example_images("resnet_8"))
    masks = {"layer2.0.conv2": torch.arange(32) % 3 > 0}
    ChannelMasks(model, graph, masks).apply()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(remove_filters(model, graph, masks)(images), model(images))


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="mask for 'stem' keeps no filter, and nothing goes past"):
        removed_from(Chain([Residual]), {"stem": mask(*[0] * 8)})


def test_zeros_stay_in_plain_layers_where_asked():
    model = Chain([Residual])
    masks = {"steps.0.conv2": mask(1, 0, 0, 0, 0, 0, 0, 1)}
    graph = trace_channels(model, IMAGE)
    plain = remove_filters(model, graph, masks, align="zeros")
    assert not any(is_aligned(module) for module in plain.modules())
    assert plain.get_submodule("steps.0.conv2").out_channels == 8
    compact, images = remove_filters(model, graph, masks), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(plain.eval()(images), compact.eval()(images))


def test_an_unknown_way_to_align_is_named():
    model = Chain([Residual])
    with pytest.raises(ValueError, match="align is 'gather': expected one of compact, zeros"):
        remove_filters(model, trace_channels(model, IMAGE), {}, align="gather")


class Caching(nn.Module):
    """Keeps a scaled weight while it evaluates, and forgets it when it trains."""

    def __init__(self):
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.rand(8, 3, 1, 1)), nn.Parameter(torch.rand(8))
        self.cache = {}

    def train(self, mode=True):
        if mode:
            self.cache = {}
        return super().train(mode)

    def forward(self, x):
        if self.training:
            return nn.functional.conv2d(x, self.weight) * self.scale[:, None, None]
        if "weight" not in self.cache:
            self.cache["weight"] = self.weight * self.scale[:, None, None, None]
        return nn.functional.conv2d(x, self.cache["weight"])


@torch.no_grad()
def test_what_a_network_cached_before_is_not_kept():
    dense, images = nn.Sequential(Caching(), nn.Conv2d(8, 2, 1)).eval(), torch.randn(2, 3, 4, 4)
    dense(images)
    kept = mask(1, 0, 1, 1, 0, 1, 1, 1)
    small = remove_filters(dense, trace_channels(dense, images), {"0": kept})
    dense.train()[0].weight[~kept] = 0
    assert small[0].weight.size(0) == 6
    torch.testing.assert_close(small(images), dense.eval()(images))


class Lying(nn.Module):
    """Adds what the trace cannot see: a number that depends on its weights."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3))) + len(self.conv.weight)


def test_a_difference_is_an_error_that_names_the_module_and_changes_nothing():
    model = Lying()
    before, graph = copy.deepcopy(model.state_dict()), trace_channels(model, IMAGE)
    masks = {"conv": torch.arange(4) > 1}
    try:
        slim = remove_filters(model, graph, masks)
    except ValueError as error:
        assert "differs from the masked one by" in str(error)
    else:  # or what it counts stays whole
        assert slim.conv.out_channels == 4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_difference_in_a_module_that_was_not_followed_is_one_of_all_operations():
    graph = trace_channels(Chain([Residual]), IMAGE)
    operations = [(0, at) for at in range(len(graph.runs[0].operations))]
    assert Difference("unseen", 1.0, "eval").misfit(graph).places == operations
    assert Difference("", 1.0, "eval").misfit(graph).places == operations
    (stem,) = Difference("stem", 1.0, "eval").misfit(graph).places
    assert graph.runs[0].operations[stem[1]].name == "conv2d"


def test_what_cannot_be_copied_is_an_error():
    model = Chain([Residual])
    model.lock = threading.Lock()
    with pytest.raises(ValueError, match="Chain cannot be copied: cannot pickle '_thread.lock'"):
        remove_filters(model, trace_channels(model, IMAGE), {})


class Frozen(nn.Module):
    """A layer that runs in inference mode, and one behind it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        with torch.inference_mode():
            x = self.first(x).relu()
        return self.second(x.clone()).mean((2, 3))


def test_a_layer_in_inference_mode_is_followed():
    small = removed_from(Frozen(), {"first": mask(1, 0, 1, 0)})
    assert (small.first.out_channels, small.second.in_channels) == (2, 2)


@pytest.mark.parametrize("inside", [False, True], ids=["all", "a module"])
def test_what_torch_compiles_is_removed_from_as_it_is_written(inside):
    model = randomized(Chain([Residual]), seed=0).float().eval()
    masks = {"steps.0.conv1": mask(1, 0, 1, 0, 1, 0)}
    small = removed_from(model, masks)
    if inside:
        model.head = torch.compile(model.head)
    else:
        model, masks = torch.compile(model), {f"_orig_mod.{x}": m for x, m in masks.items()}
    found = removed_from(model, masks)
    assert type(found) is type(model)
    with torch.compiler.set_stance("force_eager"):
        torch.testing.assert_close(found(IMAGE + 1), small(IMAGE + 1))


def test_weights_stay_channels_last():
    model = Chain([Residual]).to(memory_format=torch.channels_last)
    small = removed_from(model, {"steps.0.conv1": mask(1, 0, 1, 0, 1, 0)})
    for name in ("conv1", "conv2"):
        weight = small.get_submodule(f"steps.0.{name}").weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
