"""Ranks of any network: sites from the graph, each conv's own activation or as it is read."""

import pytest
import torch
from torch import nn
from torchvision import models

from models.registry import build_model
from utils.graph.network import Network
from utils.options.networks import network_of
from utils.paper.official import Official
from utils.rank.estimation import estimate_ranks
from utils.rank.matrix_rank import map_ranks
from utils.rank.rank_layers import layers_at

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    """Convs whose activations are functions, a module that runs twice, a linear, and a gate."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.act, self.squeeze, self.gate = nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.hidden, self.head = nn.Linear(8, 5), nn.Linear(5, 3)

    def forward(self, images):
        maps = torch.relu(self.first(images) - 0.1)
        maps = self.act(self.second(maps))
        small = self.act(self.squeeze(maps.mean((2, 3), keepdim=True)))
        maps = maps * torch.sigmoid(self.gate(small))
        return self.head(self.act(self.hidden(maps.mean((2, 3)))))


def value_of(model, size=32):
    return Network(model, "mine", torch.zeros(1, 3, size, size), 3, None, Official())


def own_activations(model, images):
    """The activations that `Functional` computes, by its code written out again."""
    first = torch.relu(model.first(images) - 0.1)
    return {"first": first, "second": torch.relu(model.second(first))}


def test_functional_and_reused_activations_are_ranked_as_values():
    torch.manual_seed(0)
    network = value_of(Functional())
    layers = {layer.conv: layer for layer in network.layers.layers}
    found = estimate_ranks(network.model, network.layers.sites(), [IMAGES[:1], IMAGES[1:]])
    with torch.no_grad():
        wanted = own_activations(network.model, IMAGES)
    for conv, maps in wanted.items():
        assert torch.equal(found[layers[conv].site].total, map_ranks(maps).sum(0)), conv


def test_what_has_no_rank_says_why_and_what_is_tied_follows():
    layers = {layer.conv: layer for layer in value_of(Functional()).layers.layers}
    assert list(layers) == ["first", "second", "squeeze", "gate", "hidden"]
    assert (layers["squeeze"].no_rank, layers["hidden"].no_rank) == ("maps of one pixel", "no maps")
    assert (layers["gate"].follows, layers["gate"].rate) == ("second", layers["second"].rate)
    assert [layer.conv for layer in value_of(Functional()).layers.scored_by_rank()] == [
        "first",
        "second",
    ]


def test_every_conv_of_a_torchvision_resnet_has_a_map_of_its_own():
    model = models.resnet18(num_classes=4)
    layers = value_of(model, size=64).layers
    found = estimate_ranks(model, layers.sites(), [torch.randn(1, 3, 64, 64)])
    convs = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert {layer.conv for layer in layers.ranked()} == set(convs)
    assert all(
        len(x.total) == model.get_submodule(name).out_channels
        for name, x in ((layer.conv, found[layer.site]) for layer in layers.layers)
    )


@pytest.mark.parametrize("name", ["vgg_16_bn", "resnet_8", "densenet_40"])
def test_maps_as_they_are_read_are_those_of_the_official_code(name):
    torch.manual_seed(0)
    network = network_of(build_model(name), name)
    ranks = {}
    for sites in ("official", "read"):
        layers = layers_at(network, sites)
        found = estimate_ranks(network.model, layers.sites(), [IMAGES[:1]])
        ranks[sites] = {layer.conv: found[layer.site].total for layer in layers.layers}
    torch.testing.assert_close(ranks["read"], ranks["official"])
