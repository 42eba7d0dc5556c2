"""Batches of images, shuffled, augmented and normalized on the device that computes."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from utils.data.images import ImageSource
from utils.data.normalization import mean_and_deviation

# the batches of an epoch, slices of its order -> those of them, or parts of them, to yield
Select = Callable[[Sequence[slice]], Sequence[slice]]


def num_batches(images: ImageSource, batch_size: int, drop_last: bool = False) -> int:
    """Return how many batches one epoch of `images` has.

    Raises:
        ValueError: the batch size is below 1, or `drop_last` would leave no batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch size: expected at least 1, got {batch_size}")
    if drop_last and len(images) < batch_size:
        raise ValueError(
            f"batch size: expected at most the {len(images)} images of {images.name!r} "
            f"when the last short batch is dropped, got {batch_size}"
        )
    return len(images) // batch_size if drop_last else -(-len(images) // batch_size)


def batches(
    images: ImageSource,
    batch_size: int,
    normalization: str,
    *,
    device: torch.device | str,
    augment: bool = False,
    seed: int | None = None,
    drop_last: bool = False,
    select: Select = list,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return one epoch of (images float32 [B, 3, H, W], labels int64 [B]) on `device`.

    Without a seed the images come in order; with one they are shuffled, each exactly once, the
    same way on every device. `augment` crops and flips them at random, as their kind has it. They
    may live on `device` (nothing is copied) or elsewhere (each batch is moved as uint8).
    `select` may leave out batches or parts of them, which are then not read; the other images come
    with the same crops all the same.

    Raises:
        ValueError: an unknown normalization, a batch size out of range, or `augment` without
            a seed; all at the call, before the first batch. Later, a file that cannot be read.
    """
    mean_and_deviation(normalization, images.channels)
    if augment and seed is None:
        raise ValueError("augmentation: expected a seed (an integer), got None")
    count = num_batches(images, batch_size, drop_last)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    order = _draw_order(len(images), generator)[: count * batch_size]
    spans = select(
        [
            slice(start, min(start + batch_size, len(order)))
            for start in range(0, len(order), batch_size)
        ]
    )

    def generate() -> Iterator[tuple[Tensor, Tensor]]:
        crops = generator if augment else None
        labels = images.labels[order.to(images.labels.device)].to(device)
        pixels = images.pixels(order, spans, device=torch.device(device), crops=crops)
        for found, span in zip(pixels, spans, strict=True):
            yield normalize(found, normalization), labels[span]

    return generate()


def normalize(images: Tensor, normalization: str) -> Tensor:
    """Return uint8 images [N, C, H, W] as float32, (pixel / 255 - mean) / deviation.

    Raises:
        ValueError: `normalization` is none; see `mean_and_deviation`.
    """
    mean, deviation = mean_and_deviation(normalization, images.shape[1])
    mean = torch.tensor(mean, device=images.device)[:, None, None]  # [3, 1, 1]
    deviation = torch.tensor(deviation, device=images.device)[:, None, None]
    return images.to(torch.float32).div_(255).sub_(mean).div_(deviation)


def _draw_order(num_images: int, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return torch.arange(num_images)
    return torch.randperm(num_images, generator=generator)
