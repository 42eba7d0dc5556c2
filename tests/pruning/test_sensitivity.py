"""Sensitivity: a shared beginning changes no answer, and what is borrowed comes back."""

from dataclasses import asdict
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from models.registry import build_model, example_images
from tests.networks import STEPS, Chain, PaddedResidual, Residual, randomized
from utils.graph.channel_graph import trace_channels
from utils.graph.groups import channel_groups
from utils.metrics.cost import physical_cost
from utils.pruning.group_plan import plan_groups
from utils.pruning.plan import plan_by_rates
from utils.pruning.scores import score_filters
from utils.pruning.sensitivity import (
    ScanPoint,
    macs_left,
    masks_at,
    read_points,
    run_masked,
    scan_units,
)
from utils.removal.masks import ChannelMasks
from utils.removal.surgery import remove_filters
from utils.runs.job_folder import JobFolder
from utils.runs.log import RunLog

RATES = (0.0, 0.3, 0.7)
IMAGE = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
BATCHES = [(torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.arange(3)) for _ in range(2)]


class InPlace(nn.Module):
    """Two readers of one value, and operations that overwrite what is read once more."""

    def __init__(self, channels: int):
        super().__init__()
        self.left = nn.Conv2d(channels, channels, 1)
        self.right = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        left = self.left(x)
        right = self.right(x)
        x.add_(right)
        return F.relu_(left) + x


@cache
def traced(*steps):
    model = randomized(Chain(list(steps)), seed=0)
    return model, trace_channels(model, IMAGE)


def scored_units(model, graph, *, across_sums=False):
    scores = score_filters(model, graph, "l1")
    return scores, scan_units(graph, scores, across_sums=across_sums)


def channel_masks(model, graph, masks):
    return [ChannelMasks(model, graph, one) for one in masks]


def whole_forwards(model, graph, masks, batches):
    """Answer each batch with each of the masks, from the image on: {(mask, batch): logits}."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = {}
    for k, one in enumerate(masks):
        ChannelMasks(model, graph, one).apply()
        with torch.no_grad():
            found |= {(k, n): model.eval()(images) for n, (images, _) in enumerate(batches)}
        model.load_state_dict(state)
    return found


@pytest.mark.parametrize("step", [*STEPS, InPlace])
def test_a_shared_beginning_changes_no_answer(step):
    model, graph = traced(step)
    scores, units = scored_units(model, graph)
    assert units
    for unit in units:
        masks = [masks_at(unit, scores, graph.filters(), rate) for rate in RATES]
        found = {}

        def add(k, logits, labels, found=found):
            assert torch.equal(labels, torch.arange(3))
            found[k, sum(key[0] == k for key in found)] = logits.clone()

        run_masked(model, graph, channel_masks(model, graph, masks), BATCHES, add)
        expected = whole_forwards(model, graph, masks, BATCHES)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        assert torch.equal(found[0, 0], model.eval()(BATCHES[0][0]))  # a rate of 0


def test_what_stands_before_the_first_masked_layer_runs_once_a_batch():
    model, graph = traced(Residual, PaddedResidual)
    scores, units = scored_units(model, graph)
    names = {id(model.get_submodule(name).weight): name for name in graph.filters()}
    calls = dict.fromkeys(graph.filters(), 0)

    class Counting(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            for argument in args:
                if id(argument) in names and func.__name__ in ("conv2d", "linear"):
                    calls[names[id(argument)]] += 1
            return func(*args, **(kwargs or {}))

    unit = next(unit for unit in units if unit.layers == ("steps.0.conv2",))
    masks = [masks_at(unit, scores, graph.filters(), rate) for rate in RATES[1:]]
    with Counting():
        run_masked(model, graph, channel_masks(model, graph, masks), BATCHES, lambda *_: None)
    once = {"stem": 2, "steps.0.conv1": 2}
    assert calls == {name: once.get(name, 2 * len(masks)) for name in calls}


def test_weights_and_modes_come_back_even_from_an_error():
    model, graph = traced(Residual)
    model.train()
    model.norm.eval()
    scores, units = scored_units(model, graph)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    masks = [masks_at(units[0], scores, graph.filters(), 0.5)]

    def fail(*_):
        assert not torch.equal(model.stem.weight, before["stem.weight"])
        raise KeyError("stop")

    with pytest.raises(KeyError):
        run_masked(model, graph, channel_masks(model, graph, masks), BATCHES, fail)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert modes == [module.training for module in model.modules()]


@pytest.mark.parametrize("across_sums", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_macs_left_are_those_of_the_removed_network(step, across_sums):
    model, graph = traced(Residual, step)
    dense = physical_cost(model, IMAGE)
    macs = {layer.weight: layer.macs for layer in dense.layers}
    scores, units = scored_units(model, graph, across_sums=across_sums)
    assert macs_left(model, graph, macs, {}) == dense.macs
    for unit in units:
        masks = masks_at(unit, scores, graph.filters(), 0.6)
        removed = physical_cost(remove_filters(model, graph, masks), IMAGE)
        assert macs_left(model, graph, macs, masks) == removed.macs


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.55, 0.9])
def test_a_conv_loses_the_filters_that_a_plan_removes(rate):
    model = build_model("resnet_20")
    graph = trace_channels(model, example_images("resnet_20"))
    scores, units = scored_units(model, graph)
    assert [unit.layers for unit in units] == [
        (conv,) for conv in graph.filters() if "conv" in conv
    ]
    plan = plan_by_rates({unit.layers[0]: scores[unit.layers[0]] for unit in units}, [rate] * 19)
    for unit, layer in zip(units, plan.layers, strict=True):
        masks = masks_at(unit, scores, graph.filters(), rate)
        assert torch.equal(masks[layer.conv], layer.mask())


def test_groups_together_lose_the_filters_that_a_grouped_plan_removes():
    model = build_model("resnet_20")
    graph = trace_channels(model, example_images("resnet_20"))
    scores, units = scored_units(model, graph, across_sums=True)
    assert len(units) == 9 + 3  # the first conv of each block, and the streams of three widths
    plan = plan_groups(channel_groups(graph, across_sums=True), scores, 0.4)
    together = {
        name: torch.ones(count, dtype=torch.bool) for name, count in graph.filters().items()
    }
    for unit in units:
        for layer, mask in masks_at(unit, scores, graph.filters(), 0.4).items():
            together[layer] &= mask
    for layer in plan.layers:
        assert torch.equal(together[layer.conv], layer.mask()), layer.conv


def test_only_scored_layers_are_units():
    model, graph = traced(Residual)
    scores = {"steps.0.conv1": torch.arange(6.0)}
    assert [u.layers for u in scan_units(graph, scores, across_sums=False)] == [("steps.0.conv1",)]


POINT = ScanPoint(("conv1",), 0.5, 16, 8, 8, 1000, 7, 10, 0.1 + 0.2)


def test_points_are_read_back_as_they_were_logged(tmp_path):
    with RunLog(JobFolder(tmp_path)) as log:
        log.epoch(asdict(POINT))
    assert read_points(tmp_path) == [POINT]


def test_the_log_of_something_else_is_no_scan(tmp_path):
    with RunLog(JobFolder(tmp_path)) as log:
        log.epoch({"epoch": 1})
    with pytest.raises(ValueError, match=r"log\.jsonl, line 1 lacks 'layers': expected a point"):
        read_points(tmp_path)
    with pytest.raises(ValueError, match=r"absent/log\.jsonl does not exist"):
        read_points(tmp_path / "absent")
