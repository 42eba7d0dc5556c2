"""Constants that masks leave go into the layers that read them, and so the channels can go."""

import copy

import pytest
import torch
import torch.nn as nn

from tests.networks import randomized
from utils.graph.channel_graph import trace_channels
from utils.removal.masks import ChannelMasks
from utils.removal.network_file import load_removed, write_removed
from utils.removal.restoration import restore_weights
from utils.removal.surgery import remove_filters

IMAGE = torch.zeros(1, 3, 8, 8)
IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
HALF = {"stem": torch.arange(8) % 2 == 0, "second": torch.arange(6) > 1}


class Block(nn.Module):
    """A conv, a norm, ReLU, and one learned number for all channels that is added to them."""

    def __init__(self, second=None, norm=None):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.scale, self.shift = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.tensor([0.7]))
        self.second = second or nn.Conv2d(8, 6, 1, bias=False)
        self.norm2 = norm or nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def affine(self, x):
        return self.scale * x + self.shift

    def forward(self, x):
        x = self.affine(torch.relu(self.norm(self.stem(x))))
        x = self.affine(torch.relu(self.norm2(self.second(x))))
        return self.head(x.mean((2, 3)))


def drawn(**parts):
    torch.manual_seed(0)
    return randomized(Block(**parts), seed=0).eval()


def masked_and_removed(model, masks=HALF):
    graph = trace_channels(model, IMAGE)
    masked = copy.deepcopy(model)
    ChannelMasks(masked, graph, masks).apply()
    removed = remove_filters(model, graph, masks)
    for train in (False, True):
        wanted = copy.deepcopy(masked).train(train)(IMAGES)
        found = copy.deepcopy(removed).train(train)(IMAGES)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    return masked, removed


def test_constants_go_into_a_running_mean_and_into_a_bias():
    model = drawn()
    _, removed = masked_and_removed(model)
    assert removed.second.weight.shape[:2] == (4, 4) and removed.head.in_features == 4
    assert list(removed.state_dict()) == list(model.state_dict())
    weight = model.second.weight[HALF["second"]][:, ~HALF["stem"]].sum((1, 2, 3))
    mean = model.norm2.running_mean[HALF["second"]] - 0.7 * weight
    torch.testing.assert_close(removed.norm2.running_mean, mean)
    head = model.head.bias + 0.7 * model.head.weight[:, ~HALF["second"]].sum(1)
    torch.testing.assert_close(removed.head.bias, head)


@pytest.mark.parametrize(
    ("second", "norm", "reads"),
    [
        (lambda: nn.Conv2d(8, 6, 1), None, 4),
        (lambda: nn.Conv2d(8, 6, 3), nn.GroupNorm(2, 6), 4),
        (lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"), None, 4),
        (lambda: nn.Conv2d(8, 6, 3, padding=1, bias=False), None, 8),
        (lambda: nn.Conv2d(8, 6, 1, bias=False), nn.GroupNorm(6, 6), 8),
        (lambda: nn.Conv2d(8, 6, 1, bias=False), nn.Identity(), 8),
        (lambda: nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6, track_running_stats=False), 8),
        (lambda: nn.Conv2d(8, 6, 1, groups=2), None, 8),
    ],
    ids="bias bias-and-group-norm reflected padded no-mean no-norm batch-only grouped".split(),
)
def test_a_layer_takes_a_constant_that_it_makes_one_number_of(second, norm, reads):
    _, removed = masked_and_removed(drawn(second=second(), norm=norm), {"stem": HALF["stem"]})
    assert removed.second.in_channels == reads


def test_a_constant_that_something_else_reads_stays():
    class Beside(Block):
        def forward(self, x):
            x = self.affine(torch.relu(self.norm(self.stem(x))))
            return self.head(self.norm2(self.second(x)).mean((2, 3))), x.amax((1, 2, 3))

    torch.manual_seed(0)
    model = randomized(Beside(), seed=0).eval()
    graph = trace_channels(model, IMAGE)
    assert remove_filters(model, graph, {"stem": HALF["stem"]}).second.in_channels == 8


@pytest.mark.parametrize("spread", [torch.softmax, torch.logsumexp, torch.nansum, torch.norm])
def test_a_constant_that_depends_on_the_size_of_the_images_stays(spread):
    class Spread(Block):
        def forward(self, x):
            x = self.affine(torch.relu(self.norm(self.stem(x)))).flatten(2)
            x = spread(x, dim=-1).reshape(*x.shape[:2], -1, 1)
            return self.head(self.norm2(self.second(x)).mean((2, 3)))

    torch.manual_seed(0)
    model = randomized(Spread(), seed=0).eval()
    masked, removed = masked_and_removed(model, {"stem": HALF["stem"]})
    other = torch.randn(2, 3, 12, 12).double()
    torch.testing.assert_close(removed(other), masked(other), rtol=1e-9, atol=1e-9)


def test_constants_fold_in_the_precision_that_the_network_has():
    model = drawn().float()
    removed = remove_filters(model, trace_channels(model, IMAGE), HALF)
    exact = masked_and_removed(drawn())[1]
    assert removed.head.in_features == 4
    assert all(p.dtype == torch.float32 for p in removed.parameters())
    torch.testing.assert_close(removed.norm2.running_mean, exact.norm2.running_mean.float())


def test_a_file_holds_what_was_folded(tmp_path):
    _, removed = masked_and_removed(drawn())
    write_removed(tmp_path / "small.pt", removed, HALF)
    again = load_removed(tmp_path / "small.pt", randomized(Block(), seed=1), IMAGE)
    assert torch.equal(again.eval()(IMAGES), removed.eval()(IMAGES))


@torch.no_grad()
def test_what_was_trained_after_folding_comes_back_to_its_places():
    dense = drawn()
    graph = trace_channels(dense, IMAGE)
    removed = remove_filters(dense, graph, HALF)
    for parameter in removed.parameters():
        parameter += 0.1 * torch.rand_like(parameter)
    restore_weights(dense, graph, HALF, removed)
    ChannelMasks(dense, graph, HALF).apply()
    torch.testing.assert_close(dense(IMAGES), removed(IMAGES), rtol=1e-9, atol=1e-9)
