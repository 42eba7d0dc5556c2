"""Random crops and flips of small images, by batched tensor operations."""

import torch
from torch import Tensor
from torch.nn import functional

PADDING = 4  # black pixels on each side before the random crop, as in the official recipe


def draw_crops(num_images: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the offsets [N, 2] and flips [N] of as many images, drawn on the CPU."""
    offsets = torch.randint(0, 2 * PADDING + 1, (num_images, 2), generator=generator)
    return offsets, torch.randint(0, 2, (num_images,), generator=generator).bool()


def crop_and_flip(images: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
    """Return a crop of each zero-padded image, mirrored left to right where `flips` is True.

    images [N, 3, H, W]; offsets int64 [N, 2], row and column of the crop in the padded image,
    0 to 2 * PADDING; flips bool [N]. The result has the shape of `images`.
    """
    height, width = images.shape[2:]
    padded = functional.pad(images, [PADDING] * 4)
    offsets, flips = offsets.to(images.device), flips.to(images.device)
    rows = offsets[:, :1] + torch.arange(height, device=images.device)  # [N, H]
    columns = offsets[:, 1:] + torch.arange(width, device=images.device)  # [N, W]
    columns = torch.where(flips[:, None], columns.flip(1), columns)
    image = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[:, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
