"""Image folders, train/<class>/* and test/<class>/* (or val/), decoded into memory."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from utils.data.image_files import ClassFiles, decode_image, labels_of, list_splits, upright
from utils.data.images import Dataset, ImageSet

MEMORY_LIMIT_BYTES = 16 * 2**30
_QUIET_FILES = 2000  # up to so many files are decoded without a progress bar


def load_image_folder(
    data_dir: str | Path, image_size: int, *, memory_limit_bytes: int = MEMORY_LIMIT_BYTES
) -> Dataset:
    """Return the images under `data_dir`, [N, 3, image_size, image_size], classes sorted by name.

    The train images are in train/<class>/, the test images in test/<class>/ or else val/<class>/,
    in subfolders too, and come sorted by path. An image of another size is resized (bilinear,
    antialiased) so that its shorter side is `image_size`, then cropped at the centre; an image of
    that size keeps its pixels.

    Raises:
        ValueError: a folder is missing or holds no images, the splits have different classes,
            a file cannot be decoded, or the images need more than `memory_limit_bytes`.
    """
    if image_size < 1:
        raise ValueError(f"image size: expected at least 1 pixel, got {image_size}")
    root = Path(data_dir)
    train, test = list_splits(root, ("train",), ("test", "val"))
    num_files = sum(len(files) for split in (train, test) for files in split.values())
    _check_memory(root, num_files * 3 * image_size**2, memory_limit_bytes)
    return Dataset(
        _load_split(train, image_size, f"{root.name} train"),
        _load_split(test, image_size, f"{root.name} test"),
        root.name,
    )


def _check_memory(root: Path, needed: int, limit: int) -> None:
    if needed > limit:
        raise ValueError(
            f"image folder {str(root)!r} needs {needed / 2**30:.3g} GiB of memory once decoded, "
            f"expected at most {limit / 2**30:.3g} GiB: use fewer or smaller images, or "
            "--dataset imagenet, which reads them from the files batch by batch"
        )


def _load_split(classes: ClassFiles, image_size: int, name: str) -> ImageSet:
    files, labels = labels_of(classes)
    images = torch.empty(len(files), 3, image_size, image_size, dtype=torch.uint8)
    pixels = images.numpy()  # the same memory

    def square(image: Image.Image) -> Image.Image:
        return _resize_and_crop(upright(image), image_size)

    def decode(index: int) -> None:
        pixels[index] = decode_image(files[index], square)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        done = pool.map(decode, range(len(files)))
        quiet = len(files) <= _QUIET_FILES
        for _ in tqdm(done, f"decoding {name}", len(files), disable=quiet, unit="image"):
            pass
    return ImageSet(images, labels, tuple(classes), name)


def _resize_and_crop(image: Image.Image, image_size: int) -> Image.Image:
    shorter = min(image.size)
    if shorter != image_size:
        width, height = (int(image_size * side / shorter) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (round((side - image_size) / 2) for side in image.size)
    return image.crop((left, top, left + image_size, top + image_size))
