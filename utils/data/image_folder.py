"""Image folders, train/<class>/* and test/<class>/* (or val/), decoded into memory."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image

from utils.data.image_files import ClassFiles, decode_image, labels_of, list_splits, upright
from utils.data.images import Dataset, ImageSet
from utils.runs.bars import bar

MEMORY_LIMIT_BYTES = 16 * 2**30


def load_image_folder(
    data_dir: str | Path,
    image_size: int | tuple[int, int],
    *,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> Dataset:
    """Return the images under `data_dir`, [N, 3, H, W], classes sorted by name.

    `image_size` is height and width, one number for both.

    The train images are in train/<class>/, the test images in test/<class>/ or else val/<class>/,
    in subfolders too, and come sorted by path. An image of another size is resized (bilinear,
    antialiased) so that it just covers that size, then cropped at the centre; an image of that size
    keeps its pixels.

    Raises:
        ValueError: a folder is missing or holds no images, the splits have different classes,
            a file cannot be decoded, or the images need more than `memory_limit_bytes`.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(size) < 1:
        raise ValueError(f"image size: expected at least 1 pixel, got {image_size}")
    root = Path(data_dir)
    train, test = list_splits(root, ("train",), ("test", "val"))
    num_files = sum(len(files) for split in (train, test) for files in split.values())
    _check_memory(root, num_files * 3 * size[0] * size[1], memory_limit_bytes)
    return Dataset(
        _load_split(train, size, f"{root.name} train"),
        _load_split(test, size, f"{root.name} test"),
        root.name,
    )


def first_image_size(data_dir: str | Path) -> tuple[int, int]:
    """Return height and width of the first train image.

    Raises:
        ValueError: a folder is missing or holds no images, or the file is none.
    """
    train, _ = list_splits(Path(data_dir), ("train",), ("test", "val"))
    pixels = decode_image(next(iter(train.values()))[0], upright)
    return pixels.shape[1], pixels.shape[2]


def _check_memory(root: Path, needed: int, limit: int) -> None:
    if needed > limit:
        raise ValueError(
            f"image folder {str(root)!r} needs {needed / 2**30:.3g} GiB of memory once decoded, "
            f"expected at most {limit / 2**30:.3g} GiB: use fewer or smaller images, or "
            "--dataset imagenet, which reads them from the files batch by batch"
        )


def _load_split(classes: ClassFiles, size: tuple[int, int], name: str) -> ImageSet:
    files, labels = labels_of(classes)
    images = torch.empty(len(files), 3, *size, dtype=torch.uint8)
    pixels = images.numpy()  # the same memory

    def fitted(image: Image.Image) -> Image.Image:
        return _resize_and_crop(upright(image), size)

    def decode(index: int) -> None:
        pixels[index] = decode_image(files[index], fitted)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        done = pool.map(decode, range(len(files)))
        for _ in bar(done, total=len(files), desc=f"decoding {name}", unit="image"):
            pass
    return ImageSet(images, labels, tuple(classes), name)


def _resize_and_crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    (width, height), (tall, wide) = image.size, size
    wanted, side = (tall, height) if tall * width >= wide * height else (wide, width)
    if wanted != side:
        resized = tuple(int(wanted * length / side) for length in image.size)
        image = image.resize(resized, Image.Resampling.BILINEAR)
    left, top = round((image.width - wide) / 2), round((image.height - tall) / 2)
    return image.crop((left, top, left + wide, top + tall))
