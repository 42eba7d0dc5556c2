"""The law of removal: a removed network computes what the masked one computes."""

import copy
import random

import pytest
import torch
import torch.nn as nn

from models.registry import build_model, example_images
from tests.idioms import IDIOMS
from tests.networks import (
    STEPS,
    Affine,
    Chain,
    ChannelsLast,
    Depthwise,
    Gate,
    PixelShuffled,
    Residual,
    random_masks,
    randomized,
)
from utils.benchmarks.networks_table import differences, enliven
from utils.graph.channel_graph import trace_channels
from utils.removal.masks import ChannelMasks
from utils.removal.surgery import remove_filters

RANDOM_CHAINS = 40


def masked_and_removed(model: nn.Module, example, rate: float, seed: int):
    """Return (masked, removed) networks for random masks on all layers but the classifier."""
    graph = trace_channels(model, example)
    protected = graph.protected()
    filters = {name: n for name, n in graph.filters().items() if name not in protected}
    masks = random_masks(filters, rate, seed)
    masked = copy.deepcopy(model)
    ChannelMasks(masked, graph, masks).apply()
    return masked, remove_filters(model, graph, masks)


def assert_law(model: nn.Module, example, rate: float, seed: int) -> None:
    model = randomized(model, seed)
    masked, removed = masked_and_removed(model, example, rate, seed)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(3, *example.shape[1:], generator=generator, dtype=torch.float64)
    for training in (False, True):
        outputs = [network.train(training)(images) for network in (masked, removed)]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-9)
    assert type(removed) is type(model) and list(removed.state_dict()) == list(model.state_dict())
    outputs[1].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in removed.parameters())


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("arch", ["vgg_16_bn", "resnet_8", "resnet_20"])
def test_removed_is_masked(arch, rate):
    assert_law(build_model(arch), example_images(arch), rate, seed=1)


@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("densenet_40", 8),
        ("googlenet", 8),
        ("resnet_50", 32),
        ("mobilenet_v1", 32),
        ("mobilenet_v2", 32),
    ],
)
def test_removed_is_masked_in_each_large_network(arch, size):
    torch.manual_seed(0)
    model = build_model(arch).double()
    images = torch.randn(3, 3, size, size, dtype=torch.float64)
    enliven(model, images, seed=1)
    masked, removed = masked_and_removed(model, images[:1], 0.5, seed=1)
    for mode, found in differences(masked, removed, images).items():
        assert found["largest_difference"] <= 1e-9 * found["scale"], (mode, found)
        assert found["scale"] > 0.01, (mode, found)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("step", [*STEPS, PixelShuffled, *IDIOMS])
def test_removed_is_masked_around_each_structure(step, flat):
    for rate in (0.3, 0.7):
        assert_law(Chain([step, step], flat=flat), torch.zeros(1, 3, 8, 8), rate, seed=2)


@pytest.mark.parametrize("seed", range(RANDOM_CHAINS))
def test_removed_is_masked_in_random_networks(seed):
    draw = random.Random(seed)
    steps = [draw.choice(STEPS + IDIOMS) for _ in range(draw.randint(2, 6))]
    model = Chain(steps, flat=draw.random() < 0.5)
    assert_law(model, torch.zeros(1, 3, 8, 8), draw.choice([0.2, 0.5, 0.8]), seed)


def test_removed_is_masked_on_maps_of_one_pixel():
    model = Chain([Residual, ChannelsLast, Depthwise, Affine, Gate])
    assert_law(model, torch.zeros(1, 3, 1, 1), 0.5, seed=2)


def test_removing_nothing_is_identity():
    model = randomized(Chain(list(STEPS)), seed=3)
    example = torch.zeros(1, 3, 8, 8)
    graph = trace_channels(model, example)
    removed = remove_filters(model, graph, {})
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert type(removed) is Chain
    assert [p.shape for p in removed.parameters()] == [p.shape for p in model.parameters()]
    assert torch.equal(removed.eval()(images), model.eval()(images))


def test_removal_leaves_the_model_as_it_was():
    model = build_model("resnet_8").train()
    before = copy.deepcopy(model.state_dict())
    masked_and_removed(model, example_images("resnet_8"), 0.5, seed=4)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training


def test_state_dict_names_are_those_of_the_dense_network():
    model = build_model("resnet_8")
    _, removed = masked_and_removed(model, example_images("resnet_8"), 0.5, seed=5)
    assert list(removed.state_dict()) == list(model.state_dict())
