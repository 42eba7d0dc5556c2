"""Whether an exported file computes what its network does."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.metrics.difference import check_rounding
from utils.runs.exported import Opened

# A .pt2 runs the same operators and gives the same bits; in an .onnx norms are folded into convs,
# which rounds differently: about 1e-6 of the largest logit in a ResNet-56.
_TOLERANCE = 1e-4  # relative to the largest logit


@torch.no_grad()
def logits_of(model: nn.Module, images: Tensor) -> dict[int, Tensor]:
    """Return the logits of the first image, of the first two and of all: {batch size: logits}.

    Raises:
        ValueError: some are not finite.
    """
    sizes = sorted({1, min(2, len(images)), len(images)})
    found = {size: model(images[:size]) for size in sizes}
    if not found[len(images)].isfinite().all():
        raise ValueError(
            "the network's logits are not finite: expected a network to compare its files with"
        )
    return found


@torch.no_grad()
def check_file(opened: Opened, images: Tensor, logits: Mapping[int, Tensor]) -> dict[str, Any]:
    """Return by how much an opened file's logits differ, and of how many images the class is same.

    `images` [N, C, H, W] are as the file takes them, `logits` what the network makes of them.

    Raises:
        RuntimeError: they differ by more than rounding; that would be our bug.
    """
    found = {size: opened(images[:size]) for size in logits}
    largest = max(float((found[size] - logits[size]).abs().max()) for size in logits)
    expected = logits[len(images)]
    scale = float(expected.abs().max())
    check_rounding(largest, scale, tolerance=_TOLERANCE, what=f"{opened.runner}: logits")
    same = int((found[len(images)].argmax(1) == expected.argmax(1)).sum())
    return {
        "opened_by": opened.runner,
        "largest_difference": largest,
        "logit_scale": scale,
        "same_class": same,
    }
