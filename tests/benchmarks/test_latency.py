"""The latency benchmark: knobs go from dense to small, and the page has what was measured."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from utils.benchmarks.latency import MEASURED, LatencyConfig, stored_text
from utils.benchmarks.latency_contest import (
    Prunable,
    at_share,
    by_macs,
    contestants,
    torch_pruning,
)
from utils.metrics.cost import physical_cost
from utils.options.networks import draw_network
from utils.paper.pages import read_block
from utils.planning.plan import score_layers


@pytest.fixture(scope="module")
def network():
    dense = draw_network("resnet_8", 0)
    scores = score_layers(dense, criterion="l1", rank_folder=Path(), seed=0)
    return Prunable(dense, scores, None, group=True)


def macs(network, model):
    return physical_cost(model, network.dense.image).macs


def test_the_knob_of_macs_goes_from_dense_to_the_least(network):
    knob = by_macs(network)
    found = [macs(network, knob(at)) for at in (0, 0.3, 0.6, 1)]
    assert found[0] == macs(network, network.dense.model)
    assert all(more > less for more, less in pairwise(found)) and found[-1] < 0.1 * found[0]


def by_size(models, _):
    """A clock by which a network takes as long as it has parameters."""
    sizes = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    return {name: SimpleNamespace(median_ms=size) for name, size in sizes.items()}


@pytest.mark.parametrize("share", [0.7, 0.4])
def test_a_knob_is_turned_until_the_time_is_what_was_asked_for(network, share):
    timing = SimpleNamespace(compare=by_size)
    knob = by_macs(network)
    setting, left = at_share(network.dense, timing, knob, share)
    assert left == pytest.approx(share, rel=0.05)
    times = by_size({"dense": network.dense.model, "pruned": knob(setting)}, None)
    assert left == times["pruned"].median_ms / times["dense"].median_ms


def test_networks_of_torch_pruning_compute_and_are_smaller(network):
    pytest.importorskip("torch_pruning")
    for knob in torch_pruning(network.dense).values():
        model = knob(0.8)
        with torch.no_grad():
            assert model(network.dense.image).shape == (1, 10)
        assert macs(network, model) < macs(network, network.dense.model)


def test_the_page_has_what_was_measured():
    if not MEASURED.exists():
        pytest.skip("nothing is measured yet")
    assert read_block("latency") == stored_text(json.loads(MEASURED.read_text()))


def test_a_row_is_measured_once_and_anew_when_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row, numbers = {"network": "torchvision:resnet50", "how": "dense"}, iter([1, 2])
    for again, expected in ((False, 1), (False, 1), (True, 2)):
        config = LatencyConfig(again=again)
        assert config.kept("speed", row, lambda: {"left": next(numbers)})["left"] == expected


def test_what_contestants_find_is_what_they_make(network):
    timing = SimpleNamespace(compare=by_size)
    for one in contestants(network, ranks=False, seed=0):
        if "time" not in one.name and "Torch" not in one.name:
            setting, left = one.find(timing, 0.6)
            models = {"dense": network.dense.model, "pruned": one.make(json.loads(f"{setting}"))}
            times = by_size(models, None)
            assert left == times["pruned"].median_ms / times["dense"].median_ms
