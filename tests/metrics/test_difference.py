"""The difference of two networks is read off the same images, in the mode they are in."""

import pytest
import torch
from torch import nn

from utils.metrics.difference import check_equal, largest_difference


def linear(*weights: float) -> nn.Linear:
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data.copy_(torch.tensor([weights]))
    return layer


def test_the_largest_difference_and_the_scale_are_those_of_a_hand_count():
    images = torch.tensor([[1.0, 0.0], [-2.0, 3.0]])
    largest, scale = largest_difference(linear(1.0, -1.0), linear(1.5, -1.0), images)
    assert (largest, scale) == (1.0, 5.0)  # outputs 1 and -5 against 1.5 and -6


def test_a_network_differs_from_itself_by_nothing_and_keeps_its_mode():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    largest, scale = largest_difference(model, model, torch.randn(4, 2))
    assert largest == 0 and scale > 0
    assert model.training


def test_networks_are_equal_up_to_a_share_of_the_scale():
    images = torch.tensor([[10.0, 0.0]])
    one, other = linear(1.0, 0.0), linear(1.01, 0.0)
    largest, scale = check_equal(one, other, images, tolerance=0.02, what="answers")
    assert scale == 10 and largest == pytest.approx(0.1, rel=1e-4)
    for wrong in (linear(1.03, 0.0), linear(float("nan"), 0.0)):
        with pytest.raises(RuntimeError, match="answers differ by"):
            check_equal(one, wrong, images, tolerance=0.02, what="answers")
