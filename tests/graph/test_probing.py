"""An operation that nobody knows is followed where trying shows that it takes channels singly."""

import copy
import warnings

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision

from tests.networks import randomized
from utils.graph.channel_graph import trace_channels
from utils.graph.groups import channel_groups, describe
from utils.removal.masks import ChannelMasks
from utils.removal.surgery import remove_filters

IMAGE = torch.zeros(1, 3, 8, 8)
IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
MASKS = {"first": torch.tensor([True, False, True, True, False, True])}


class Between(nn.Module):
    """Two convs with an operation between them."""

    def __init__(self, operation):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)
        self.operation = operation

    def forward(self, x):
        return self.second(self.operation(self.first(x))).mean((2, 3))


def attention(x):
    """Mix places by weights that all channels make together."""
    mean = x.mean(1).flatten(1)
    weights = (mean[:, :, None] * mean[:, None]).softmax(-1)
    return (x.flatten(2) @ weights).view_as(x)


def warped(x):
    """Read the image at places that it names itself."""
    grid = torch.stack([x.mean(1), x.amax(1)], -1)
    return F.grid_sample(x, grid.tanh(), align_corners=False)


def turned(x):
    """Turn the image by an angle that it names itself."""
    angle = x.mean((1, 2, 3))
    sin, cos = angle.sin(), angle.cos()
    theta = torch.stack([cos, -sin, angle, sin, cos, angle], 1).view(-1, 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, x.shape, False), align_corners=False)


def compiled(function):
    """Return what TorchScript makes of a function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = torch.jit.script(function)
    return lambda x: code(x)


def mish(x):
    """An activation."""
    return x * torch.tanh(torch.nn.functional.softplus(x))


def scaled(x):
    """A norm over channels."""
    return x / (1.0 + x.abs().sum(1, keepdim=True))


def regions(x, count=3):
    """Pool over boxes that all channels make together."""
    places = x.mean((1, 3))[:1, :4].sigmoid() * torch.tensor([1.0, 1.0, 5.0, 5.0]).to(x)
    boxes = torch.cat([torch.zeros_like(places[:, :1]), places], 1).expand(count, -1)
    return torchvision.ops.roi_align(x, boxes, 3)


def written(x):
    """Double the rows that the image chooses, and clear others."""
    rows = x.movedim(2, 0).clone()
    mean = rows.mean((1, 2, 3))
    rows[mean > mean.median()] = 2 * rows[mean > mean.median()]
    rows[mean.argmin()[None]] = 0.0
    return rows.movedim(0, 2)


SINGLY = {
    "zero stays": lambda x: torch.special.i1(x),
    "zero becomes one": lambda x: torch.special.i0e(x),
    "mixes places": lambda x: torch.fft.fft2(x).real,
    "fewer places": lambda x: torch.fft.rfft(x).real,
    "by keyword": lambda x: torch.special.bessel_j1(input=x),
    "weights of all channels": attention,
    "places of all channels": warped,
    "an angle of all channels": turned,
    "compiled": compiled(mish),
    "boxes": regions,
    "no boxes": lambda x: regions(x, count=0),
    "chosen rows": lambda x: x[:, :, x.mean((0, 1, 3)).argsort()],
    "rows written to": written,
}
MIXING = {
    "a transform over channels": lambda x: torch.fft.fft(x, dim=1).real,
    "a norm over channels": lambda x: torch.renorm(x, 2, 0, 1.0),
    "the number of channels": lambda x: torch.fft.fftshift(x, dim=1),
    "compiled": compiled(scaled),
    "at random": lambda x: torch.poisson(x.abs()),
}


@pytest.mark.parametrize("name", SINGLY)
def test_an_operation_on_single_channels_is_followed(name):
    model = randomized(Between(SINGLY[name]), seed=0).eval()
    graph = trace_channels(model, IMAGE)
    assert "first" not in graph.protected()
    masked = copy.deepcopy(model)
    ChannelMasks(masked, graph, MASKS).apply()
    removed = remove_filters(model, graph, MASKS)
    torch.testing.assert_close(removed(IMAGES), masked(IMAGES), rtol=1e-9, atol=1e-9)
    assert removed.second.in_channels == 4


@pytest.mark.parametrize("name", MIXING)
def test_an_operation_on_several_channels_keeps_them_whole_and_is_told(name):
    graph = trace_channels(randomized(Between(MIXING[name]), seed=0), IMAGE)
    assert graph.protected() == {"first", "second"}
    told = describe(channel_groups(graph, across_sums=True))
    assert "first: 6 channels; protected: is read by what is not followed" in told
