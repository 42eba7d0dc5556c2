"""Channel sorting changes the order of filters and nothing else."""

import random

import pytest
import torch

from models.registry import build_model, example_images
from tests.networks import (
    STEPS,
    Chain,
    Concat,
    Depthwise,
    Gate,
    PaddedResidual,
    Residual,
    randomized,
)
from utils.graph.channel_graph import trace_channels
from utils.graph.groups import channel_groups
from utils.pruning.criteria import l1
from utils.pruning.group_plan import plan_groups
from utils.pruning.scores import filter_weights, score_filters
from utils.pruning.sorting import sort_channels
from utils.removal.surgery import remove_filters

IMAGE = torch.zeros(1, 3, 8, 8)


def check_same_function(model, example):
    graph = trace_channels(model, example)
    ordered, layers = sort_channels(model, graph, score_filters(model, graph, "l1"))
    images = torch.randn(2, *example.shape[1:], dtype=torch.float64)
    torch.testing.assert_close(ordered.eval()(images), model.eval()(images), rtol=1e-9, atol=1e-9)
    return graph, ordered, layers


@pytest.mark.parametrize("step", STEPS)
def test_sorting_changes_no_output_of_any_structure(step):
    for flat in (False, True):
        check_same_function(randomized(Chain([step, step], flat=flat), seed=6), IMAGE)


@pytest.mark.parametrize("seed", range(20))
def test_sorting_changes_no_output_of_random_networks(seed):
    draw = random.Random(seed)
    steps = [draw.choice(STEPS) for _ in range(draw.randint(2, 6))]
    check_same_function(randomized(Chain(steps, flat=draw.random() < 0.5), seed), IMAGE)


@pytest.mark.parametrize("arch", ["vgg_16_bn", "resnet_8"])
def test_sorted_layers_fall_in_score(arch):
    model = randomized(build_model(arch), seed=7)
    graph, ordered, layers = check_same_function(model, example_images(arch))
    alone = [layer for layer in layers if "conv2" not in layer and layer != "conv1"]
    assert len(alone) >= 3
    for layer in alone:
        scores = l1(filter_weights(ordered, graph)[layer])
        torch.testing.assert_close(scores, scores.sort(descending=True).values)
        before = l1(filter_weights(model, graph)[layer])
        torch.testing.assert_close(scores, before.sort(descending=True).values)


@pytest.mark.parametrize("criterion", ["l1", "input_norm"])
def test_keeping_the_first_of_the_sorted_is_keeping_the_best(criterion):
    """Which is why `prune` sorts nothing: to keep the best is to sort and to keep the first."""
    model = randomized(Chain([Residual, Gate, Residual]), seed=8).eval()
    graph = trace_channels(model, IMAGE)
    groups = channel_groups(graph, across_sums=True)
    scores = score_filters(model, graph, criterion)
    ordered, layers = sort_channels(model, graph, scores)
    assert len(layers) >= 5
    rates = dict.fromkeys(layers, 0.4)
    best = plan_groups(groups, scores, rates)
    prefix = plan_groups(groups, score_filters(ordered, graph, "first"), rates)
    for layer in prefix.layers:
        assert layer.kept == tuple(range(layer.filters - layer.removed))
    assert best.num_kept() == prefix.num_kept() and best.masks().keys() == set(layers)
    assert best.layers != prefix.layers
    images = torch.randn(2, *IMAGE.shape[1:], dtype=torch.float64)
    by_score = remove_filters(model, graph, best.masks())(images)
    by_prefix = remove_filters(ordered.eval(), graph, prefix.masks())(images)
    torch.testing.assert_close(by_prefix, by_score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "step, expected",
    [(Residual, True), (Gate, True), (Depthwise, False), (Concat, True), (PaddedResidual, False)],
)
def test_the_stem_moves_where_its_channels_line_up(step, expected):
    model = randomized(Chain([step]), seed=9)
    graph = trace_channels(model, IMAGE)
    _, layers = sort_channels(model, graph, score_filters(model, graph, "l1"))
    assert ("stem" in layers) is expected
