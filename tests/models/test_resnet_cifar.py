"""The CIFAR ResNets' shortcut without weights."""

import torch

from models.registry import build_model


def test_a_padded_shortcut_puts_every_other_pixel_amid_channels_of_zeros():
    shortcut = build_model("resnet_8").layer2[0].shortcut
    maps = torch.rand(2, 16, 6, 4) + 1
    padded = shortcut(maps)
    assert padded.shape == (2, 32, 3, 2)
    assert torch.equal(padded[:, 8:24], maps[:, :, ::2, ::2])
    assert not padded[:, :8].any() and not padded[:, 24:].any()
