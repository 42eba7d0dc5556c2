"""How far apart two networks' outputs are on the same images."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def largest_difference(
    reference: nn.Module, model: nn.Module, images: Tensor
) -> tuple[float, float]:
    """Return the largest |model - reference| output and, as its scale, the largest |reference|.

    Both run on `images` in the mode they are in.
    """
    expected = reference(images)
    return float((model(images) - expected).abs().max()), float(expected.abs().max())
