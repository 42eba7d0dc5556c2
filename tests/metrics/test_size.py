"""Bytes of parameters against hand counts."""

import pytest
import torch
from torch import nn

from utils.metrics.size import ParameterSize, parameter_size


def network():
    """A conv of 2 x 3 weights, 1 of them zero, two biases that are zero, and a norm of 2 + 2."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    nn.init.ones_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    model[0].weight.data[1, 2] = 0
    return model


@pytest.mark.parametrize(
    ("bits", "dense", "nonzero"),
    [
        (32, 4 * (6 + 2 + 2 + 2), 4 * (5 + 0 + 2 + 0)),
        (8, 6 + 2 + 2 + 2, 5 + 0 + 2 + 0),
        (3, 3 + 1 + 1 + 1, 2 + 0 + 1 + 0),  # 18, 6, 6, 6 and 15, 0, 6, 0 bits in whole bytes
        (1, 1 + 1 + 1 + 1, 1 + 0 + 1 + 0),
    ],
)
def test_a_hand_counts_the_same(bits, dense, nonzero):
    assert parameter_size(network(), bits) == ParameterSize(bits, dense, nonzero)


def test_parameters_in_float32_take_what_torch_keeps_of_them():
    model = nn.Linear(7, 5)
    kept = sum(parameter.untyped_storage().nbytes() for parameter in model.parameters())
    assert parameter_size(model, 32).dense_bytes == kept


def test_a_parameter_with_two_names_counts_once():
    conv = nn.Conv2d(4, 4, 1)
    once, twice = nn.Sequential(conv), nn.Sequential(conv, nn.ReLU(), conv)
    assert parameter_size(twice, 16) == parameter_size(once, 16)


def test_without_zeros_both_sizes_are_the_same():
    model = nn.Linear(7, 5)
    torch.nn.init.ones_(model.weight)
    torch.nn.init.ones_(model.bias)
    found = parameter_size(model, 5)
    assert found.dense_bytes == found.nonzero_bytes == 22 + 4


@pytest.mark.parametrize("bits", [0, -8])
def test_no_bits_are_an_error(bits):
    with pytest.raises(ValueError, match=f"expected 1 or more, got {bits}"):
        parameter_size(nn.Linear(1, 1), bits)
