"""Peaks of activation memory against hand counts."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.registry import build_model
from utils.metrics.memory import allocated_bytes, peak_activation_bytes

IMAGE = torch.zeros(1, 2, 8, 8)
INPUT = 4 * 2 * 64  # bytes


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 1)


# name: network on [1, 2, 8, 8], and its peak in float32 numbers of each of its 64 positions:
# the input stays to the end, a conv's input until the conv has returned.
CHAINS = {
    "one conv": (nn.Sequential(conv(2, 3)), 2 + 3),
    "two convs": (nn.Sequential(conv(2, 3), conv(3, 5)), 2 + 3 + 5),
    "the first is gone": (nn.Sequential(conv(2, 3), conv(3, 5), conv(5, 1)), 2 + 3 + 5),
    "the last is wide": (nn.Sequential(conv(2, 3), conv(3, 5), conv(5, 9)), 2 + 5 + 9),
    "in place": (nn.Sequential(conv(2, 3), nn.ReLU(inplace=True)), 2 + 3),
    "not in place": (nn.Sequential(conv(2, 3), nn.ReLU()), 2 + 3 + 3),
    "views": (nn.Sequential(nn.Flatten(), nn.Unflatten(1, (2, 8, 8)), conv(2, 3)), 2 + 3),
    "nothing": (nn.Sequential(), 2),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_chain_needs_what_a_hand_counts(name, batch_size):
    model, numbers = CHAINS[name]
    batch = IMAGE.repeat(batch_size, 1, 1, 1)
    assert peak_activation_bytes(model, batch) == batch_size * 4 * 64 * numbers


class Branch(nn.Module):
    """A wide branch, beside which the stem's result is kept for a shortcut, or let go."""

    def __init__(self, shortcut):
        super().__init__()
        self.shortcut = shortcut
        self.stem, self.wide, self.narrow = conv(2, 4), conv(4, 16), conv(16, 4)

    def forward(self, x):
        x = self.stem(x)
        branch = self.wide(x)
        if not self.shortcut:
            del x
            return self.narrow(branch)
        return self.narrow(branch) + x


def test_what_is_referred_to_later_stays():
    assert peak_activation_bytes(Branch(shortcut=False), IMAGE) == 256 * (2 + 4 + 16)
    assert peak_activation_bytes(Branch(shortcut=True), IMAGE) == 256 * (2 + 4 + 16 + 4 + 4)


def test_weights_buffers_and_views_of_them_do_not_count():
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 1000), nn.BatchNorm1d(1000))
    assert peak_activation_bytes(model, IMAGE) == INPUT + 2 * 4000


def test_temporaries_inside_a_composite_operator_count():
    class Similarity(nn.Module):
        def forward(self, x):
            return F.cosine_similarity(x, x + 1, dim=1)

    assert peak_activation_bytes(Similarity(), IMAGE) > INPUT + INPUT + INPUT // 2


def test_an_image_out_of_a_big_batch_counts_alone():
    batch = torch.zeros(50, 2, 8, 8)
    assert peak_activation_bytes(nn.Sequential(conv(2, 3)), batch[:1]) == 256 * (2 + 3)


def test_resnet_56_peaks_in_a_block_of_its_first_stage():
    # The input, and five maps of 16 channels: the stem's, which the network's forward holds; the
    # block's; its residual, before and after the norm; and the sum.
    images = torch.zeros(2, 3, 32, 32)
    expected = 4 * images.numel() + 5 * 4 * 2 * 16 * 1024
    assert peak_activation_bytes(build_model("resnet_56"), images) == expected


def test_measuring_leaves_the_network_as_it_was():
    model = nn.Sequential(conv(2, 3), nn.BatchNorm2d(3))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    peak_activation_bytes(model, IMAGE)
    assert [module.training for module in model] == [True, False]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_cpu_has_no_allocator_to_ask():
    assert allocated_bytes(nn.Sequential(conv(2, 3)), IMAGE) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("name", CHAINS)
def test_a_gpus_allocator_holds_what_is_alive_at_least(name):
    model, images = CHAINS[name][0].cuda(), IMAGE.repeat(64, 1, 1, 1).cuda()
    model(images)  # libraries allocate for themselves once
    assert allocated_bytes(model, images) >= peak_activation_bytes(model, images)
