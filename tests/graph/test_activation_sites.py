"""A conv's own activation lies behind its norms and activations, before anything is mixed in."""

import torch
from torch import nn

from utils.graph.activation_sites import SiteValues, activation_sites
from utils.graph.channel_graph import trace_channels

IMAGE = torch.zeros(1, 3, 8, 8)


class Branching(nn.Module):
    """A conv read twice, a conv called twice, a ReLU used twice, and one behind a function."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.middle, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, images):
        maps = self.relu(self.norm(self.first(images)))
        maps = self.twice(self.twice(maps)) + maps
        return torch.relu(self.last(self.relu(self.middle(maps))))


def modules_of(model):
    sites = activation_sites(trace_channels(model, IMAGE))
    return {layer: site.module for layer, site in sites.items()}


def test_a_chain_is_followed_up_to_the_pooling():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(inplace=True), nn.MaxPool2d(2), nn.ReLU()
    )
    assert modules_of(model) == {"0": "2"}


def test_a_module_used_twice_and_a_function_have_sites_without_a_module():
    assert modules_of(Branching()) == {"first": "", "middle": "", "last": ""}


def test_the_values_of_sites_are_what_the_network_computes():
    model = Branching().eval()
    sites = activation_sites(trace_channels(model, IMAGE))
    images, found = torch.randn(2, 3, 8, 8), {}
    with torch.no_grad(), SiteValues(model, [s.call for s in sites.values()], found.__setitem__):
        out = model(images)
    first = torch.relu(model.norm(model.first(images)))
    assert torch.equal(found[sites["last"].call], out)
    assert torch.equal(found[sites["first"].call], first)
    maps = model.twice(model.twice(first)) + first
    assert torch.equal(found[sites["middle"].call], torch.relu(model.middle(maps)))


class ByImage(nn.Module):
    """Normalizes image by image, so that larger batches take more functions."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

    def forward(self, images):
        images = torch.stack([torch.relu(image - image.mean()) for image in images])
        return torch.relu(self.last(torch.relu(self.first(images)))).mean((2, 3))


@torch.no_grad()
def test_what_runs_once_for_each_image_shifts_no_site():
    model = ByImage().eval()
    sites = activation_sites(trace_channels(model, IMAGE))
    for count in (1, 2, 5):
        images, found = torch.randn(count, 3, 8, 8), {}
        with SiteValues(model, [site.call for site in sites.values()], found.__setitem__):
            out = model(images)
        assert torch.equal(found[sites["last"].call].mean((2, 3)), out)
        assert found[sites["first"].call].shape == (count, 4, 6, 6)
