"""Keys of torchvision's MobileNetV2 become ours, one for one."""

import pytest
import torch
import torchvision

from models.mobilenet import flat_keys
from models.registry import build_model


def test_torchvisions_keys_become_ours_in_order():
    with torch.device("meta"):
        theirs = torchvision.models.mobilenet_v2().state_dict()
        ours = build_model("mobilenet_v2").state_dict()
    own = flat_keys(theirs)
    assert list(own) == list(theirs)
    assert list(own.values()) == list(ours)
    assert all(theirs[key].shape == ours[own[key]].shape for key in theirs)


def test_our_own_keys_stay():
    with torch.device("meta"):
        ours = build_model("mobilenet_v2").state_dict()
    assert flat_keys(ours) == {key: key for key in ours}


@pytest.mark.parametrize("key", ["features.2.conv.4.weight", "features.1.conv.1.0.weight", "total"])
def test_keys_of_neither_stay(key):
    assert flat_keys(["features.1.conv.0.0.weight", key])[key] == key
