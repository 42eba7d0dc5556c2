"""Loading a removed network does again what was done, be it more than its masks say."""

import copy

import pytest
import torch
from torch import nn

from tests.networks import Chain, Residual
from utils.graph.channel_graph import trace_channels
from utils.removal.masks import ChannelMasks
from utils.removal.network_file import load_removed, write_removed
from utils.removal.record import removals_of
from utils.removal.restoration import restore_weights
from utils.removal.surgery import remove_filters
from utils.removal.zero_filters import remove_zero_filters

IMAGE = torch.zeros(1, 3, 8, 8)
IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
HALF = torch.arange(8) < 4


class Counting(nn.Module):
    """Divides by a number that its layer says of itself: only the proof finds out."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.first(x)))) / self.second.out_channels
        return self.head(x.mean((2, 3)))


class Shifted(nn.Module):
    """Adds a parameter of its own to every channel, those whose filters are zero among them."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 4, 3, padding=1)
        self.scale, self.shift = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8) - 0.5)

    def forward(self, x):
        x = self.conv(x) * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)
        return self.last(x).mean((2, 3))


def drawn(network):
    torch.manual_seed(0)
    return network().eval()


def loaded(path, removed, masks, dense):
    """The removed network from a file, which must be what was written."""
    write_removed(path, removed, masks)
    again = load_removed(path, dense, IMAGE)
    state = again.state_dict()
    for name, value in removed.state_dict().items():
        assert torch.equal(value, state[name])
    assert torch.equal(again.eval()(IMAGES), removed.eval()(IMAGES))
    return again


def test_what_only_the_proof_kept_is_kept_by_the_file(tmp_path):
    model, masks = drawn(Counting), {"first": HALF, "second": HALF}
    removed = remove_filters(model, trace_channels(model, IMAGE), masks)
    assert removed.second.out_channels == 8
    again = loaded(tmp_path / "small.pt", removed, masks, drawn(Counting))
    loaded(tmp_path / "again.pt", copy.deepcopy(again), masks, drawn(Counting))


def test_what_only_the_proof_kept_takes_its_weights_back():
    dense, masks = drawn(Counting), {"first": HALF, "second": HALF}
    graph = trace_channels(dense, IMAGE)
    removed = remove_filters(dense, graph, masks)
    expected = removed(IMAGES)
    nn.init.normal_(dense.second.weight)
    restore_weights(dense, graph, masks, removed)
    ChannelMasks(dense, graph, masks).apply()
    torch.testing.assert_close(dense(IMAGES), expected)


def test_zeros_that_were_left_in_plain_layers_are_left_by_the_file(tmp_path):
    model, masks = drawn(lambda: Chain([Residual])), {"steps.0.conv2": HALF}
    removed = remove_filters(model, trace_channels(model, IMAGE), masks, align="zeros")
    assert removed.get_submodule("steps.0.conv2").out_channels == 8
    loaded(tmp_path / "small.pt", removed, masks, drawn(lambda: Chain([Residual])))


@torch.no_grad()
def test_shifts_of_zero_filters_that_were_not_masked_come_back(tmp_path):
    model = drawn(Shifted)
    model.conv.weight[:4] = 0
    removal = remove_zero_filters(model, IMAGE)
    assert removal.model.shift.numel() == 8  # the padded conv sees where the shift ends
    loaded(tmp_path / "small.pt", removal.model, removal.masks, drawn(Shifted))


def test_the_second_removal_of_two_is_done_again(tmp_path):
    model = drawn(Counting)
    once = remove_filters(model, trace_channels(model, IMAGE), {"first": HALF})
    graph = trace_channels(once, IMAGE)
    masks = {"second": HALF}
    twice = remove_filters(once, graph, masks)
    assert len(removals_of(twice)) == 2 and removals_of(model) == ()
    loaded(tmp_path / "small.pt", twice, masks, copy.deepcopy(once))


def spoilt(**changes):
    """Changes of what a file says of its only removal."""
    return lambda removals: [{**removals[0], **changes}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda removals: {}, "'removals' is an empty object, expected a list"),
        (lambda removals: [3], r"'removals\[0\]' is 3, expected an object"),
        (spoilt(align="gather"), "do not say how filters were removed"),
        (spoilt(ways=[[0, 1, 2]]), "expected whole numbers"),
        (spoilt(ways=torch.zeros(2, 4, dtype=torch.long)), "expected whole numbers"),
        (spoilt(ways=torch.tensor([[0, -1, 4]])), "expected whole numbers"),
        (spoilt(unmasked=torch.tensor([0.5])), "expected whole numbers"),
        (spoilt(ways=torch.tensor([[0, 1000, 4]])), "operations that the network does not have"),
        (spoilt(ways=torch.tensor([[0, 0, 5]])), "operations that the network does not have"),
        (spoilt(unmasked=torch.tensor([10**9])), "operations that the network does not have"),
    ],
)
def test_a_removal_that_does_not_fit_is_refused(tmp_path, change, message):
    model, masks = drawn(Counting), {"first": HALF, "second": HALF}
    removed = remove_filters(model, trace_channels(model, IMAGE), masks)
    write_removed(tmp_path / "small.pt", removed, masks)
    content = torch.load(tmp_path / "small.pt", weights_only=True)
    torch.save({**content, "removals": change(content["removals"])}, tmp_path / "small.pt")
    with pytest.raises(ValueError, match=message):
        load_removed(tmp_path / "small.pt", drawn(Counting), IMAGE)


def test_a_file_from_before_removals_were_noted_is_replayed_by_its_masks(tmp_path):
    model, masks = drawn(lambda: Chain([Residual])), {"steps.0.conv2": HALF}
    removed = remove_filters(model, trace_channels(model, IMAGE), masks)
    write_removed(tmp_path / "small.pt", removed, masks)
    content = torch.load(tmp_path / "small.pt", weights_only=True)
    del content["removals"]
    torch.save(content, tmp_path / "small.pt")
    again = load_removed(tmp_path / "small.pt", drawn(lambda: Chain([Residual])), IMAGE)
    assert torch.equal(again.eval()(IMAGES), removed.eval()(IMAGES))
