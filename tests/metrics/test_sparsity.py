"""Zeros that were put into a network are the zeros that are found."""

import pytest
import torch
from torch import nn

from utils.metrics.sparsity import Zeros, total_zeros, zero_filters, zero_values

CONVS = {
    "plain": nn.Conv2d(3, 6, 3),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": nn.Conv2d(6, 6, 3, groups=6),
    "conv1d": nn.Conv1d(3, 6, 3, bias=False),
    "transposed": nn.ConvTranspose2d(4, 6, 3),
    "transposed, grouped": nn.ConvTranspose2d(4, 6, 3, groups=2),
}


def ones(conv):
    for parameter in conv.parameters():
        nn.init.ones_(parameter)
    return conv


@pytest.mark.parametrize("name", CONVS)
def test_a_filter_is_zero_if_its_channel_is_its_bias_whatever_comes_in(name):
    conv = ones(CONVS[name])
    shape = [2, conv.in_channels] + [9] * (conv.weight.dim() - 2)
    maps, gone = torch.rand(shape), (1, 2, 5)
    weight = conv.weight.data
    if conv.transposed:  # [C_in, F / groups, ...]: filter f is column f % (F / groups) of its group
        for f in gone:
            group, column = divmod(f, weight.shape[1])
            inputs = len(weight) // conv.groups
            weight[group * inputs : (group + 1) * inputs, column] = 0
    else:
        weight[list(gone)] = 0
    channels = conv(maps).transpose(0, 1).flatten(1)  # [F, numbers]
    constant = (channels == channels[:, :1]).all(dim=1)
    assert constant.nonzero().flatten().tolist() == list(gone)
    assert zero_filters(nn.Sequential(conv)) == [Zeros("0", 3, 6)]


def test_zeros_are_counted_tensor_by_tensor_and_over_all():
    model = nn.Sequential(ones(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4), ones(nn.Linear(4, 2)))
    model[0].weight.data[1] = 0
    model[0].weight.data[2, 0] = 0
    rows = zero_values(model)
    assert [(row.name, row.zeros, row.count) for row in rows] == [
        ("0.weight", 4, 12),
        ("0.bias", 0, 4),
        ("1.weight", 0, 4),
        ("1.bias", 4, 4),
        ("2.weight", 0, 8),
        ("2.bias", 0, 2),
    ]
    assert total_zeros(rows) == {"zeros": 8, "count": 34, "share": 8 / 34}
    assert zero_filters(model) == [Zeros("0", 1, 4)]


def test_a_network_without_parameters_has_no_zeros():
    assert total_zeros(zero_values(nn.ReLU())) == {"zeros": 0, "count": 0, "share": 0}
