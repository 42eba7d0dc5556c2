"""Traces: they follow train() and eval(), part by part, and nothing else changes."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from utils.graph.channel_graph import trace_channels
from utils.graph.tracing import trace
from utils.removal.surgery import remove_filters

IMAGE = torch.zeros(1, 3, 8, 8)


class Dropped(nn.Module):
    """Drops half of what it is given, by the functional form."""

    def forward(self, x):
        return F.dropout(x, 0.5, self.training)


class Network(nn.Module):
    """A residual block between functional dropouts, at the root and in a submodule."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.drop = Dropped()
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.dropout2d(self.stem(x), p=0.5, training=self.training)
        x = x + self.drop(self.conv(x))
        return self.head(x.mean((2, 3))) + torch.ones(4)


class DropPath(nn.Module):
    """Stochastic depth as it is commonly written: control flow that reads `self.training`."""

    def forward(self, x):
        if not self.training:
            return x
        return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.5) * 2


class Noisy(nn.Module):
    """Does in training what it does not do in evaluation, with a functional dropout behind it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        x = self.conv(x)
        if self.training:
            x = F.dropout(x + 1.0, 0.5)
        return F.dropout(x.flatten(1), 0.5, self.training)


class Supervised(nn.Module):
    """Cannot be traced in train mode."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        if self.training:
            raise ValueError("expected targets")
        return self.conv(x).flatten(1)


def removed() -> nn.Module:
    """Return the network without half of the residual conv's filters: a GraphModule."""
    model = Network()
    masks = {"conv": torch.arange(8) % 2 == 0, "stem": torch.arange(8) > 0}
    slim = remove_filters(model, trace_channels(model, IMAGE), masks)
    assert isinstance(slim, torch.fx.GraphModule)
    return slim


def is_random(network: nn.Module) -> bool:
    images = torch.randn(2, 3, 8, 8)
    return not torch.equal(network(images), network(images))


@pytest.mark.parametrize("through", [lambda x: x, copy.deepcopy], ids=["itself", "copy"])
def test_functional_dropout_follows_the_mode(through):
    network = through(removed())
    assert is_random(network.train())
    assert not is_random(network.eval())
    assert is_random(network.train())


@pytest.mark.parametrize("training", [False, True])
def test_removal_hands_the_mode_on(training):
    model = Network().train(training)
    graph = trace_channels(model, IMAGE)
    slim = remove_filters(model, graph, {"conv": torch.arange(8) > 3})
    assert is_random(slim) is training


def test_a_part_that_is_frozen_in_eval_mode_stays_frozen():
    network = removed().train()
    network.drop.eval()
    assert network.training and is_random(network)
    network.eval()
    network.drop.train()
    assert is_random(network)


@pytest.mark.parametrize("training", [False, True])
def test_export_takes_the_mode_that_the_network_is_in(training):
    network = removed().train(training)
    exported = torch.export.export(network, (torch.randn(2, 3, 8, 8),))
    rates = [n.args[2] for n in exported.graph.nodes if "dropout.default" in str(n.target)]
    assert rates == [training] * len(rates) and rates
    assert is_random(exported.module(check_guards=False)) is training


def test_a_compiled_network_follows_the_mode():
    network = removed().train()
    compiled = torch.compile(network, backend="eager")
    assert is_random(compiled)
    network.eval()
    assert not is_random(compiled)


def test_stochastic_depth_stays_whole():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), DropPath(), nn.Conv2d(8, 4, 1))
    traced = trace(model)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == [*"012"]
    assert trace_channels(model, IMAGE).filters() == {"0": 8, "2": 4}


def test_where_the_modes_differ_the_trace_is_that_of_eval_mode():
    model, images = Noisy(), torch.randn(2, 3, 8, 8)
    traced = trace(model)
    assert len([n for n in traced.graph.nodes if n.name.startswith("dropout")]) == 1
    assert torch.equal(traced.eval()(images), model.eval()(images))


def test_a_network_that_only_evaluates_can_be_traced():
    model, images = Supervised(), torch.randn(2, 3, 8, 8)
    assert torch.equal(trace(model)(images), model.eval()(images))


@pytest.mark.parametrize("training", [False, True])
def test_modes_and_random_numbers_are_as_they_were(training):
    model = Network().train(training)
    model.drop.train(not training)
    before = torch.get_rng_state()
    trace(model)
    assert [m.training for m in (model, model.drop)] == [training, not training]
    assert torch.equal(torch.get_rng_state(), before)
