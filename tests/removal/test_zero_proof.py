"""Without its constant channels a network trains as it did, or the removal says why it may not."""

import copy

import pytest
import torch
import torch.nn as nn

from tests.networks import Chain, Residual, randomized
from utils.removal.zero_filters import remove_zero_filters

IMAGE = torch.zeros(1, 3, 8, 8)
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()


class Two(nn.Module):
    """Two convs with something between; filter 1 of the first is zero, with its bias or without."""

    def __init__(self, between, bias=0.7):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.between = nn.Conv2d(3, 4, 3), between
        self.second = nn.Conv2d(4, 5, 3)
        nn.init.zeros_(self.first.weight[1].detach())
        nn.init.constant_(self.first.bias[1].detach(), bias)

    def forward(self, x):
        return self.second(self.between(self.first(x))).mean((2, 3))


class Deep(Two):
    """It has an auxiliary head, which reads the first conv in train mode alone."""

    def __init__(self, bias):
        super().__init__(nn.ReLU(), bias)
        self.side = nn.Conv2d(4, 2, 3)

    def forward(self, x):
        x = self.between(self.first(x))
        out = self.second(x).mean((2, 3))
        return (out, self.side(x).mean((2, 3))) if self.training else out


def outputs(model, train):
    out = copy.deepcopy(model).train(train)(IMAGES)
    return out if isinstance(out, tuple) else (out,)


def masked_norm():
    """A network whose norm makes zero of the zero filter in both modes."""
    model = randomized(Two(nn.BatchNorm2d(4), bias=0.0), seed=1)
    nn.init.zeros_(model.first.weight[1].detach())
    for parameter in (model.first.bias, model.between.weight, model.between.bias):
        nn.init.zeros_(parameter[1].detach())
    return model


@pytest.mark.parametrize(
    ("made", "otherwise"),
    [
        (lambda: Two(nn.ReLU()), ""),
        (lambda: Two(nn.Hardswish()), ""),
        (masked_norm, ""),
        (lambda: randomized(Chain([Residual]), seed=2), ""),
        (lambda: Deep(-0.7), ""),
        (lambda: Two(nn.BatchNorm2d(4)), "conv2d in second reads another constant in train mode"),
        (lambda: Two(nn.Dropout()), "conv2d in second reads another constant in train mode"),
        (lambda: Deep(0.7), "conv2d in second reads another constant in train mode"),
    ],
    ids="relu hardswish masked untouched zero-side norm dropout constant-side".split(),
)
def test_train_mode_is_proven_where_the_constants_are_the_same(made, otherwise):
    model = made().double().eval()
    removal = remove_zero_filters(model, IMAGE)
    assert removal.trains_otherwise == otherwise
    for train in (False, True) if not otherwise else (False,):
        for found, wanted in zip(outputs(removal.model, train), outputs(model, train), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_what_differs_in_train_mode_really_does():
    model = randomized(Two(nn.BatchNorm2d(4)), seed=3).eval()
    nn.init.zeros_(model.first.weight[1].detach())
    removal = remove_zero_filters(model, IMAGE)
    assert removal.trains_otherwise and removal.kept["first"] == [0, 2, 3]
    found, wanted = outputs(removal.model, True)[0], outputs(model, True)[0]
    assert float((found - wanted).abs().max()) > 1e-3


def test_constants_fold_in_the_precision_that_the_network_has():
    model = Two(nn.ReLU())
    removal = remove_zero_filters(model, IMAGE)
    assert removal.trains_otherwise == "" and removal.kept["first"] == [0, 2, 3]
    assert all(p.dtype == torch.float32 for p in removal.model.parameters())
    bias = model.second.bias + 0.7 * model.second.weight[:, 1].sum((1, 2))
    torch.testing.assert_close(removal.model.second.bias, bias)


def test_a_network_that_is_not_checked_says_so():
    removal = remove_zero_filters(Two(nn.ReLU()), IMAGE, check=False)
    assert removal.trains_otherwise == "it was not checked"
