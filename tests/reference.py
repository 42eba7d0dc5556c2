"""Facts about the official code and its published files, where they are at hand."""

import json
from pathlib import Path
from typing import Any

import pytest

REFERENCE = Path(__file__).parents[1] / "../shared/reference"
NETWORKS = ("vgg_16_bn", "resnet_56", "resnet_110", "densenet_40", "googlenet", "resnet_50")
HRANKPLUS_RATES = {  # how many compress rates HRankPlus takes
    "vgg_16_bn": 12,
    "resnet_56": 30,
    "resnet_110": 57,
    "densenet_40": 39,
    "googlenet": 10,
    "resnet_50": 20,
    "mobilenet_v1": 13,
    "mobilenet_v2": 8,
}

needs_reference = pytest.mark.skipif(
    not REFERENCE.exists(), reason="the reference data is not at hand"
)


def reference(name: str) -> Any:
    """Return a reference JSON file, or an empty dict where it is not at hand."""
    path = REFERENCE / name
    return json.loads(path.read_text()) if path.exists() else {}


def published_ranks(arch: str) -> Path:
    """Return the folder of the published rank files of a network."""
    return REFERENCE / "hrank_rank_conv" / arch
