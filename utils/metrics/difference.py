"""How far apart two networks' outputs are on the same images."""

import torch
import torch.nn as nn
from torch import Tensor

from utils.runs.borrowed_state import evaluating


@torch.no_grad()
def largest_difference(
    reference: nn.Module, model: nn.Module, images: Tensor
) -> tuple[float, float]:
    """Return the largest |model - reference| output and, as its scale, the largest |reference|.

    Both run on `images` in the mode they are in.
    """
    expected = reference(images)
    return float((model(images) - expected).abs().max()), float(expected.abs().max())


def check_equal(
    reference: nn.Module, model: nn.Module, images: Tensor, *, tolerance: float, what: str
) -> tuple[float, float]:
    """Return what `largest_difference` does, in eval mode, of networks that should compute alike.

    Raises:
        RuntimeError: see `check_rounding`.
    """
    with evaluating(reference), evaluating(model):
        largest, scale = largest_difference(reference, model, images)
    check_rounding(largest, scale, tolerance=tolerance, what=what)
    return largest, scale


def check_rounding(largest: float, scale: float, *, tolerance: float, what: str) -> None:
    """Refuse a largest difference of outputs that is more than rounding.

    Raises:
        RuntimeError: it is more than `tolerance` times their scale (times 1, where that is less);
            that would be our bug.
    """
    if not largest <= tolerance * max(scale, 1.0):
        raise RuntimeError(f"{what} differ by {largest} at a scale of {scale}")


def check_removed(masked: nn.Module, slim: nn.Module, images: Tensor) -> dict[str, float]:
    """Return the largest |removed - masked| logit on images [N, C, H, W], and their scale.

    Raises:
        RuntimeError: they differ by more than float32 rounding; that would be our bug.
    """
    what = "removed and masked logits"
    largest, scale = check_equal(masked, slim, images, tolerance=1e-3, what=what)
    return {"largest": largest, "logit_scale": scale, "images": len(images)}
