"""A network carries what it knows, and opening one touches nothing else."""

from dataclasses import FrozenInstanceError

import pytest
import torch

from models.registry import ARCHITECTURES
from utils.options.networks import draw_network, outline


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_outline_knows_all_that_a_network_does_and_holds_no_number(name):
    known = outline(name)
    assert known.example.shape[2:] == known.image_size
    assert {tensor.device.type for tensor in known.model.state_dict().values()} == {"meta"}
    convs = [layer.conv for layer in known.layers.layers]
    assert all(hasattr(known.model.get_submodule(conv), "kernel_size") for conv in convs)
    followed = {layer.follows for layer in known.layers.layers} - {None}
    assert followed <= {layer.conv for layer in known.layers.scored()}
    assert outline(name) is known


def test_a_drawn_network_is_its_seeds_and_leaves_the_random_numbers_as_they_were():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (draw_network("resnet_8", seed, num_classes=3) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert one.num_classes == one.model.linear.out_features == 3
    weights = [network.model.conv1.weight for network in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_network_is_traced_once_and_stays_what_it_is():
    network = draw_network("resnet_8", 0)
    assert network.graph is network.graph
    assert {layer.conv for layer in network.layers.layers} <= network.graph.filters().keys()
    assert network.named == {"arch": "resnet_8", "checkpoint": None}
    assert network.checkpoint_sha256 is None
    with pytest.raises(FrozenInstanceError):
        network.spec = "resnet_20"
