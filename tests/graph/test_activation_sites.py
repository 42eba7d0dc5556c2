"""A conv's own activation lies behind its norms and activations, before anything is mixed in."""

import pytest
import torch
from torch import nn

from utils.graph.activation_sites import activation_sites


class Branching(nn.Module):
    """A conv read twice, a conv called twice, and one behind a functional ReLU."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, images):
        maps = self.relu(self.norm(self.first(images)))
        maps = self.twice(self.twice(maps)) + maps
        return torch.relu(self.last(maps))


def test_a_chain_is_followed_up_to_the_pooling():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(inplace=True), nn.MaxPool2d(2), nn.ReLU()
    )
    assert activation_sites(model) == {"0": "2"}


def test_branches_end_the_way_and_convs_that_run_twice_have_no_one_map():
    assert activation_sites(Branching()) == {"first": "relu", "last": "last"}


def test_what_cannot_be_traced_is_an_error():
    class Dynamic(nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    with pytest.raises(ValueError, match="torch.fx cannot trace Dynamic"):
        activation_sites(Dynamic())
