"""Batches of an image set, shuffled, augmented and normalized by batched tensor operations."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from utils.data.images import NORMALIZATIONS, ImageSet

PADDING = 4  # black pixels on each side before the random crop, as in the official recipe


def num_batches(image_set: ImageSet, batch_size: int, drop_last: bool = False) -> int:
    """Return how many batches one epoch of `image_set` has.

    Raises:
        ValueError: the batch size is below 1, or `drop_last` would leave no batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch size: expected at least 1, got {batch_size}")
    if drop_last and len(image_set) < batch_size:
        raise ValueError(
            f"batch size: expected at most the {len(image_set)} images of {image_set.name!r} "
            f"when the last short batch is dropped, got {batch_size}"
        )
    return len(image_set) // batch_size if drop_last else -(-len(image_set) // batch_size)


def batches(
    image_set: ImageSet,
    batch_size: int,
    normalization: str,
    *,
    device: torch.device | str,
    augment: bool = False,
    seed: int | None = None,
    drop_last: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return one epoch of (images float32 [B, 3, H, W], labels int64 [B]) on `device`.

    Without a seed the images come in order; with one they are shuffled, each exactly once, the
    same way on every device. `augment` pads by 4 black pixels, crops at a random place and
    flips half of the images. The set may live on `device` (nothing is copied) or elsewhere (each
    batch is moved as uint8).

    Raises:
        ValueError: an unknown normalization, a batch size out of range, or `augment` without
            a seed; all at the call, before the first batch.
    """
    _check_normalization(normalization)
    if augment and seed is None:
        raise ValueError("augmentation: expected a seed (an integer), got None")
    count = num_batches(image_set, batch_size, drop_last)
    order, offsets, flips = _draw_epoch(len(image_set), seed)

    def generate() -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(count):
            span = slice(index * batch_size, (index + 1) * batch_size)
            chosen = order[span].to(image_set.images.device)
            images = image_set.images[chosen].to(device)
            if augment:
                images = crop_and_flip(images, offsets[span], flips[span])
            yield normalize(images, normalization), image_set.labels[chosen].to(device)

    return generate()


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


def normalize(images: Tensor, normalization: str) -> Tensor:
    """Return uint8 images [N, 3, H, W] as float32, (pixel / 255 - mean) / deviation.

    Raises:
        ValueError: `normalization` is not a key of NORMALIZATIONS.
    """
    _check_normalization(normalization)
    mean, deviation = NORMALIZATIONS[normalization]
    mean = torch.tensor(mean, device=images.device)[:, None, None]  # [3, 1, 1]
    deviation = torch.tensor(deviation, device=images.device)[:, None, None]
    return images.to(torch.float32).div_(255).sub_(mean).div_(deviation)


def _check_normalization(normalization: str) -> None:
    if normalization not in NORMALIZATIONS:
        legal = ", ".join(NORMALIZATIONS)
        raise ValueError(f"normalization: expected one of {legal}, got {normalization!r}")


def _draw_epoch(num_images: int, seed: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the epoch's order [N], crop offsets [N, 2] and flips [N], drawn on the CPU."""
    if seed is None:
        return torch.arange(num_images), torch.empty(0, 2), torch.empty(0)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(num_images, generator=generator)
    offsets = torch.randint(0, 2 * PADDING + 1, (num_images, 2), generator=generator)
    flips = torch.randint(0, 2, (num_images,), generator=generator).bool()
    return order, offsets, flips
