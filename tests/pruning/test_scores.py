"""Scores of any traced network's filters, by criteria that need only weights."""

import math

import pytest
import torch
import torch.nn as nn

from tests.networks import (
    Chain,
    Concat,
    Depthwise,
    Grouped,
    PreActivation,
    Residual,
    Transposed,
    randomized,
)
from utils.graph.channel_graph import trace_channels
from utils.graph.filters import filters_first
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
    weight = filters_first(conv)
    if groups == 1:  # with more, no filter is a slice of the weight, and none goes
        found = filter_weights(model, trace_channels(model, IMAGE))
        assert torch.equal(found["1"], weight)
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


def norm(*weights):
    """The square root of the sum of all squares, one by one."""
    return math.sqrt(sum(x**2 for weight in weights for x in weight.flatten().tolist()))


def test_input_norm_reads_a_flattened_map_at_all_its_positions():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)
    )
    found = score_filters(model, trace_channels(model, IMAGE), "input_norm")
    assert list(found) == ["0"]
    for i, score in enumerate(found["0"].tolist()):
        assert score == pytest.approx(norm(model[4].weight[:, 64 * i : 64 * (i + 1)]))


def test_input_norm_goes_through_cats_sums_and_norms_to_all_readers():
    model, graph = traced(Concat, Residual, PreActivation)
    found = score_filters(model, graph, "input_norm")
    concat, residual, last = model.steps

    def later(c):
        return residual.conv1.weight[:, c], last.conv.weight[:, c], model.head.weight[:, c]

    for i in range(8):  # the stem's channels stand behind the four of the block's conv
        readers = (concat.conv.weight[:, i], *later(4 + i))
        assert float(found["stem"][i]) == pytest.approx(norm(*readers))
    for i in range(4):
        assert float(found["steps.0.conv"][i]) == pytest.approx(norm(*later(i)))
    for i in range(6):
        assert float(found["steps.1.conv1"][i]) == pytest.approx(norm(residual.conv2.weight[:, i]))
    for i in range(12):
        assert float(found["steps.1.conv2"][i]) == pytest.approx(norm(*later(i)[1:]))
        assert float(found["steps.2.conv"][i]) == pytest.approx(norm(model.head.weight[:, i]))


def test_input_norm_passes_a_depthwise_conv_and_knows_the_block_of_a_grouped_one():
    model, graph = traced(Depthwise, Grouped)
    found = score_filters(model, graph, "input_norm")
    first, second = model.steps
    pairs = [norm(first.pointwise.weight[:, 2 * i : 2 * i + 2]) for i in range(8)]
    assert found["stem"].tolist() == pytest.approx(pairs)
    alone = [norm(first.pointwise.weight[:, i]) for i in range(16)]
    assert found["steps.0.depthwise"].tolist() == pytest.approx(alone)
    blocks = [norm(second.conv.weight[4 * (i // 4) :][:4, i % 4]) for i in range(8)]
    assert found["steps.0.pointwise"].tolist() == pytest.approx(blocks)


def test_input_norm_counts_a_reader_once_however_often_a_channel_reaches_it():
    class Swish(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            y = self.conv(x)
            return self.out(y * torch.sigmoid(y) + y)

    model = Swish()
    found = score_filters(model, trace_channels(model, IMAGE), "input_norm")["conv"]
    torch.testing.assert_close(found, model.out.weight.detach().flatten(2).norm(dim=(0, 2)))


def test_input_norm_of_a_module_that_is_called_twice_takes_the_readers_of_both():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1))
    model = nn.Sequential(model[0], model[1], model[0], model[1], model[2])
    found = score_filters(model, trace_channels(model, IMAGE), "input_norm")["0"]
    expected = [norm(model[0].weight[:, i], model[4].weight[:, i]) for i in range(3)]
    assert found.tolist() == pytest.approx(expected)
