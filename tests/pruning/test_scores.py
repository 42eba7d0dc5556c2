"""Scores of any traced network's filters, by criteria that need only weights."""

import pytest
import torch
import torch.nn as nn

from models.channel_graph import trace_channels
from tests.networks import Chain, PreActivation, Residual, Transposed, randomized
from utils.pruning.criteria import l1
from utils.pruning.scores import filter_weights, score_filters

IMAGE = torch.zeros(1, 3, 8, 8)


def traced(*steps):
    model = randomized(Chain(list(steps)), seed=0)
    return model, trace_channels(model, IMAGE)


def test_every_layer_but_the_classifier_is_scored_filter_by_filter():
    model, graph = traced(Residual)
    scores = score_filters(model, graph, "l1")
    assert list(scores) == ["stem", "steps.0.conv1", "steps.0.conv2"]
    for layer, found in scores.items():
        assert torch.equal(found, l1(model.get_submodule(layer).weight.detach()))


@pytest.mark.parametrize("groups", [1, 2])
def test_filters_of_a_transposed_conv_come_first(groups):
    conv = nn.ConvTranspose2d(4, 6, 2, groups=groups)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), conv, nn.Conv2d(6, 2, 1))
    weight = filter_weights(model, trace_channels(model, IMAGE))["1"]
    assert weight.shape == (6, 4 // groups, 2, 2)
    for index in range(6):
        group, own = divmod(index, 6 // groups)
        inputs = slice(group * (4 // groups), (group + 1) * (4 // groups))
        assert torch.equal(weight[index], conv.weight[inputs, own])


def test_bn_scale_is_the_size_of_the_norm_behind_the_filter():
    model, graph = traced(Residual, PreActivation, Transposed)
    scores = score_filters(model, graph, "bn_scale")
    norms = {
        "stem": "norm",
        "steps.0.conv1": "steps.0.norm1",
        "steps.0.conv2": "steps.0.norm2",
        "steps.2.up": "steps.2.norm",
    }
    assert list(scores) == list(norms)
    for layer, norm in norms.items():
        assert torch.equal(scores[layer], model.get_submodule(norm).weight.detach().abs())


def test_bn_scale_without_a_norm_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(ValueError, match="criterion bn_scale: no conv has a norm with a scale"):
        score_filters(model, trace_channels(model, IMAGE), "bn_scale")
