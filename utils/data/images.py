"""Labelled images: what every source of them gives, those in memory, the normalizations."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.data.augmentation import crop_and_flip, draw_crops


class ImageSource(ABC):
    """Labelled images, wherever they are: labels [N] int64, each an index into `classes`."""

    labels: Tensor
    classes: tuple[str, ...]
    name: str

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return 3

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def subset(self, indices: Tensor | Sequence[int], name: str | None = None) -> "ImageSource":
        """Return the images at `indices`, in that order, under the same name or another."""

    @abstractmethod
    def to(self, device: torch.device | str) -> "ImageSource":
        """Return the source with what it holds in memory on `device`."""

    @abstractmethod
    def pixels(
        self,
        order: Tensor,
        spans: Sequence[slice],
        *,
        device: torch.device,
        crops: torch.Generator | None,
    ) -> Iterator[Tensor]:
        """Yield for each span the images at order[span], uint8 [B, 3, H, W] on `device`.

        Where `crops` is given, they are cropped and flipped at random, as it and their place in
        `order` decide.
        """


@dataclass(frozen=True, eq=False)
class ImageSet(ImageSource):
    """Images in memory, [N, 3, H, W] uint8, or [N, 1, H, W] of gray ones.

    Raises:
        ValueError: the tensors have other types or shapes, or a label names no class.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
            got = f"{images.dtype} {list(images.shape)}"
            raise ValueError(f"images of {self.name!r}: expected uint8 [N, 3, H, W], got {got}")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            got = f"{labels.dtype} {list(labels.shape)}"
            raise ValueError(f"labels of {self.name!r}: expected int64 [{len(images)}], got {got}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            got = f"{int(labels.min())} to {int(labels.max())}"
            raise ValueError(
                f"labels of {self.name!r}: expected 0 to {len(self.classes) - 1}, got {got}"
            )

    @property
    def channels(self) -> int:
        """Channels of an image: 3, or 1 of gray ones."""
        return self.images.shape[1]

    def subset(self, indices: Tensor | Sequence[int], name: str | None = None) -> "ImageSet":
        """Return the images at `indices`, in that order, under the same name or another."""
        indices = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        images, labels = self.images[indices], self.labels[indices]
        return ImageSet(images, labels, self.classes, name or self.name)

    def to(self, device: torch.device | str) -> "ImageSet":
        """Return the set on `device`; the tensors are shared if they are there already."""
        return ImageSet(self.images.to(device), self.labels.to(device), self.classes, self.name)

    def pixels(
        self,
        order: Tensor,
        spans: Sequence[slice],
        *,
        device: torch.device,
        crops: torch.Generator | None,
    ) -> Iterator[Tensor]:
        """Yield batches as every source does; a crop is of the image padded by 4 black pixels."""
        if crops is not None:
            offsets, flips = draw_crops(len(self), crops)
        for span in spans:
            found = self.images[order[span].to(self.images.device)].to(device)
            yield found if crops is None else crop_and_flip(found, offsets[span], flips[span])


@dataclass(frozen=True, eq=False)
class Dataset:
    """The train and test images of one task, with the same classes in the same order."""

    train: ImageSource
    test: ImageSource
    name: str


def gray(data: Dataset) -> Dataset:
    """Return images in memory as gray ones, [N, 1, H, W]: their luma, rounded as PIL does."""
    weights = torch.tensor([19595, 38470, 7471])[:, None, None]  # of red, green, blue, by 65536

    def grayed(source: ImageSet) -> ImageSet:
        parts = (
            images.int().mul(weights).sum(1, keepdim=True) for images in source.images.split(512)
        )
        luma = torch.cat([part.add(32768).div(65536, rounding_mode="floor") for part in parts])
        return ImageSet(luma.to(torch.uint8), source.labels, source.classes, source.name)

    return Dataset(grayed(data.train), grayed(data.test), data.name)


def check_enough(images: ImageSource, count: int, wanted: str) -> None:
    """Refuse a `count` of more images than there are; `wanted` says it in the user's words.

    Raises:
        ValueError: it is.
    """
    if count > len(images):
        raise ValueError(f"{wanted}: expected at most the {len(images)} of {images.name!r}")


def draw_images(images: ImageSource, count: int, seed: int) -> ImageSource:
    """Return `count` of the images, or all if they are fewer, in an order drawn by the seed."""
    generator = torch.Generator().manual_seed(seed)
    return images.subset(torch.randperm(len(images), generator=generator)[:count])


def split_validation(
    train: ImageSource, fraction: float, seed: int
) -> tuple[ImageSource, ImageSource]:
    """Return (train, validation): `fraction` of each class, drawn by `seed`, is held out.

    Both keep the order of the given set. A class gives round(fraction * images), at least one
    and never its last; the split depends on labels, fraction and seed alone.

    Raises:
        ValueError: the fraction is not between 0 and 1, or no class can spare an image.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation fraction: expected more than 0, less than 1, got {fraction}")
    generator = torch.Generator().manual_seed(seed)
    labels = train.labels.cpu()
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    counts = torch.bincount(labels, minlength=len(train.classes))
    for members in labels.argsort(stable=True).split(counts.tolist()):  # of a class, in order
        order = torch.randperm(len(members), generator=generator)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_out[members[order[: max(0, count)]]] = True
    if not held_out.any():
        raise ValueError(
            f"cannot hold out a validation split of {train.name!r} ({len(train)} images): "
            "expected a class with at least 2 images"
        )
    rest = train.subset((~held_out).nonzero().flatten())
    name = f"{train.name} (validation split)"
    return rest, train.subset(held_out.nonzero().flatten(), name)
