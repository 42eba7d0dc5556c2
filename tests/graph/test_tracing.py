"""Traces run the network as it is, in both modes, and leave it as it was."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from utils.graph.channel_graph import trace_channels
from utils.removal.surgery import remove_filters

IMAGE = torch.zeros(1, 3, 8, 8)


class DropPath(nn.Module):
    """Stochastic depth as it is commonly written: control flow that reads `self.training`."""

    def forward(self, x):
        if not self.training:
            return x
        return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.5) * 2


class Network(nn.Module):
    """A residual block between functional dropouts, with a counter and a cache."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.drop = nn.BatchNorm2d(8), DropPath()
        self.head = nn.Linear(8, 4)
        self.calls, self.seen = 0, []

    def forward(self, x):
        self.calls += 1
        self.seen.append(x.shape)
        x = F.dropout2d(self.stem(x), p=0.5, training=self.training)
        x = x + self.drop(self.norm(self.conv(x)))
        return self.head(x.mean((2, 3))) + torch.ones(4)


class Mixing(nn.Module):
    """Mixes its channels in training alone."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x).mean((2, 3))
        if self.training:
            x = x.softmax(1)
        return self.head(x)


class Supervised(nn.Module):
    """Cannot be run in train mode."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3)

    def forward(self, x):
        if self.training:
            raise ValueError("expected targets")
        return self.conv(x).flatten(1)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("example", [IMAGE, torch.zeros(1, 4, 8, 8)], ids=["runs", "fails"])
def test_the_model_is_as_it_was(training, example):
    model = Network().train(training)
    model.drop.train(not training)
    before, random = copy.deepcopy(model), torch.get_rng_state()
    names = [vars(module).keys() for module in model.modules()]
    try:
        trace_channels(model, example)
    except ValueError:
        assert example.size(1) == 4
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert (model.calls, model.seen) == (0, [])
    assert [vars(module).keys() for module in model.modules()] == names
    assert torch.equal(torch.get_rng_state(), random)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.state_dict().items())


def test_the_removed_network_is_of_its_own_class_and_follows_the_mode():
    model = Network()
    masks = {"conv": torch.arange(8) % 2 == 0, "stem": torch.arange(8) > 0}
    slim = remove_filters(model, trace_channels(model, IMAGE), masks)
    assert type(slim) is Network
    images = torch.randn(2, 3, 8, 8)
    torch.manual_seed(0)
    assert not torch.equal(slim.train()(images), slim(images))
    assert torch.equal(slim.eval()(images), slim(images))


def test_what_training_alone_mixes_stays_whole():
    model = Mixing()
    graph = trace_channels(model, IMAGE)
    assert [run.training for run in graph.runs] == [False, True]
    slim = remove_filters(model, graph, {"stem": torch.arange(8) > 3})
    assert slim.head.in_features == 8


def test_a_network_that_only_evaluates_is_removed_from_unproven():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), Supervised(6))
    graph, masks = trace_channels(model, IMAGE), {"0": torch.arange(6) > 2}
    assert graph.filters() == {"0": 6, "1.conv": 8}
    sentence = (
        "in train mode, where Sequential does not run .*: expected targets; expected an example"
    )
    with pytest.raises(ValueError, match=sentence):
        remove_filters(model, graph, masks)
    slim = remove_filters(model, graph, masks, check=False).eval()
    assert slim[0].out_channels == 3 and slim(IMAGE).shape == model.eval()(IMAGE).shape


@pytest.mark.parametrize("name", ["class", "lambda"])
def test_a_name_that_no_exported_network_can_have_is_refused(name):
    model = nn.Sequential(nn.ModuleDict({name: nn.Conv2d(3, 4, 1)}))
    with pytest.raises(ValueError, match=rf"module '0\.{name}': torch\.export .* another name"):
        trace_channels(model, torch.zeros(1, 3, 4, 4))


class Fourier(nn.Module):
    """A complex parameter before all others."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8, dtype=torch.cfloat))
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        spectrum = torch.fft.rfft2(F.relu(self.stem(x)))
        mixed = torch.einsum("oi,nihw->nohw", self.weight.to(spectrum.dtype), spectrum)
        return self.head(torch.fft.irfft2(mixed, s=x.shape[-2:]))


def test_images_are_real_where_the_first_parameter_is_complex():
    network = Fourier()
    assert set(trace_channels(network, IMAGE).filters()) == {"stem", "head"}


class Normalized(nn.Module):
    """Weights that are divided by their largest singular value, which all of them decide."""

    def __init__(self):
        super().__init__()
        norm = torch.nn.utils.parametrizations.spectral_norm
        self.convs = nn.Sequential(norm(nn.Conv2d(3, 8, 1)), nn.ReLU(), norm(nn.Conv2d(8, 8, 1)))
        self.head = norm(nn.Linear(8, 1))

    def forward(self, x):
        return self.head(self.convs(x).sum((2, 3)))


def test_spectral_norms_are_followed_and_read_every_channel():
    network = Normalized()
    masks = {"convs.0": torch.arange(8) % 2 == 0}
    small = remove_filters(network, trace_channels(network, IMAGE), masks)
    assert small.convs[2].weight.shape[:2] == (8, 8)
