"""Laws of runtimes: each computes what the network does, and one that is missing says so."""

import functools
import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from tests.networks import Chain, Residual, randomized
from utils.graph.branches import branches
from utils.graph.channel_graph import trace_channels
from utils.metrics.latency import compare_latency
from utils.metrics.layer_shapes import layer_shapes
from utils.metrics.runtimes import RUNTIMES, runtime_of, timing_graph
from utils.removal.surgery import remove_filters


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(512, 5)).eval()


@pytest.fixture(params=RUNTIMES)
def runtime(request, monkeypatch):
    if missing := RUNTIMES[request.param].missing():
        pytest.skip(f"{' and '.join(missing)} not installed")
    eager = functools.partial(torch.compile, backend="aot_eager")  # all but the C++
    monkeypatch.setattr(torch, "compile", eager)
    return RUNTIMES[request.param]


@torch.inference_mode()
def test_a_runtime_computes_what_the_network_does(runtime):
    model, images = network(), torch.randn(4, 3, 8, 8)
    found = runtime.prepared({"a": model}, images)["a"]()
    found = found if isinstance(found, torch.Tensor) else torch.from_numpy(np.asarray(found[0]))
    torch.testing.assert_close(found, model(images), atol=1e-5, rtol=1e-4)


def test_networks_are_timed_on_it_and_it_is_told(runtime):
    timed = compare_latency({"a": network()}, torch.zeros(2, 3, 8, 8), 2, runtime=runtime.name)
    assert timed["a"].runtime == runtime.name and timed["a"].median_ms > 0


def test_sums_with_dropped_branches_are_not_timed():
    onnx = pytest.importorskip("onnx")
    model, images = randomized(Chain([Residual, Residual]), seed=0).float(), torch.randn(2, 3, 8, 8)
    graph = trace_channels(model, images[:1])
    first, *_ = branches(graph)
    sizes = graph.filters()
    masks = {layer: torch.zeros(sizes[layer], dtype=torch.bool) for layer in first.layers}
    slim = remove_filters(model, graph, masks).eval()

    def sums(network):
        made = onnx.load_from_string(timing_graph(network, images))
        return sum(node.op_type == "Add" for node in made.graph.node)

    assert sums(slim) == sums(model.eval()) - 1
    runtime = RUNTIMES["onnxruntime"]
    if not runtime.missing():
        (found,) = runtime.prepared({"slim": slim}, images)["slim"]()
        torch.testing.assert_close(torch.from_numpy(found), slim(images), atol=1e-5, rtol=1e-4)


def test_a_layer_takes_time(runtime):
    for shape in layer_shapes(network(), torch.zeros(1, 3, 8, 8)).values():
        assert runtime.layer_ms(shape, 2) > 0


def test_an_unknown_runtime_is_an_error():
    with pytest.raises(ValueError, match="runtime 'tvm': expected one of eager, compile, onnx"):
        runtime_of("tvm")


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="runtime openvino does not find .*pip install .*openvino"):
        runtime_of("openvino")


def test_a_runtime_of_the_cpu_refuses_another_device():
    images = torch.zeros(1, 3, 8, 8, device="meta")
    with pytest.raises(ValueError, match="runtime onnxruntime on meta: expected the device cpu"):
        RUNTIMES["onnxruntime"].prepared({"a": network()}, images)
