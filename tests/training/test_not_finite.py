"""A value that is not finite is traced to the layer that made it."""

import math

import pytest
import torch
from torch import nn

from tests.training.tiny_run import tiny_images, tiny_network
from utils.training.not_finite import LossWatch, first_layer_not_finite

IMAGES, _ = tiny_images(8, seed=0)


@pytest.mark.parametrize("layer", [0, 1, 6])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_layer_is_named(layer, value):
    model = tiny_network()
    with torch.no_grad():
        model[layer].bias[1] = value
    expected = f"{layer} ({type(model[layer]).__name__})"
    assert first_layer_not_finite(model, IMAGES) == expected
    assert not any(module._forward_hooks for module in model.modules())


def test_what_a_module_computes_itself_is_its_own():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Flatten()

        def forward(self, images):
            return self.layer(images) / 0

    assert first_layer_not_finite(nn.Sequential(Block()), IMAGES) == "0 (Block)"
    assert first_layer_not_finite(Block(), IMAGES) == "the network (Block)"


def test_where_all_is_finite_there_is_none():
    assert first_layer_not_finite(tiny_network(), IMAGES) is None


def test_a_loss_that_breaks_behind_the_network_is_said_to():
    watch = LossWatch(tiny_network(), torch.autocast("cpu", enabled=False))
    watch.see(torch.tensor(1.0), IMAGES)
    with pytest.raises(ValueError, match="not finite at step 2, .* is in the loss itself"):
        watch.see(torch.tensor(math.nan), IMAGES)
