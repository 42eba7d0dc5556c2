"""Removal: shapes, costs and what becomes of the smaller network."""

import copy

import pytest
import torch
import torch.fx as fx

from models.registry import build_model, example_images
from tests.networks import Chain, Residual, random_masks
from utils.graph.channel_graph import trace_channels
from utils.metrics.cost import physical_cost
from utils.removal.gather import ChannelGather, ScatterAdd
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


def test_convs_that_feed_a_sum_are_scattered_into_it():
    removed = removed_from(Chain([Residual]), {"steps.0.conv2": mask(1, 0, 0, 0, 0, 0, 0, 1)})
    gathers = [m for m in removed.modules() if isinstance(m, ChannelGather)]
    assert isinstance(removed, fx.GraphModule)
    assert [str(m) for m in gathers] == ["ScatterAdd(8 channels along dim 1, 6 of them zero)"]
    assert removed.get_submodule("steps.0.norm2").num_features == 2


@pytest.fixture(scope="module")
def small_resnet():
    model = build_model("resnet_8")
    graph = trace_channels(model, example_images("resnet_8"))
    filters = {name: n for name, n in graph.filters().items() if name != "linear"}
    return remove_filters(model, graph, random_masks(filters, 0.5, seed=1)).eval()


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
    with pytest.raises(ValueError, match="mask for 'stem' keeps no filter: expected at least one"):
        removed_from(Chain([Residual]), {"stem": mask(*[0] * 8)})


@pytest.mark.parametrize("index", [(2, 0), (-1, 0, -1, 1, 2), (0, 1, 2), (0, 1), (-1, 2), (1, 1)])
def test_gather_picks_and_fills_like_a_loop(index):
    source = torch.randn(2, 3, 4, 4)
    channels = [torch.zeros(2, 4, 4) if i < 0 else source[:, i] for i in index]
    assert torch.equal(ChannelGather(index, dim=1)(source), torch.stack(channels, 1))


def test_scatter_add_adds_what_gather_makes():
    stream, source = torch.randn(2, 4, 3), torch.randn(2, 2, 3)
    for index in ((-1, 1, -1, 0), (0, 1, 1, 0)):
        expected = stream + ChannelGather(index, dim=1)(source)
        assert torch.equal(ScatterAdd(index, dim=1)(stream, source), expected)


def test_gather_joins_several_sources():
    left, right = torch.randn(2, 2, 3), torch.randn(2, 1, 3)
    gathered = ChannelGather((2, -1, 0), dim=1)(left, right)
    assert torch.equal(gathered, torch.stack([right[:, 0], torch.zeros(2, 3), left[:, 0]], 1))
