"""Image folders, train/<class>/* and test/<class>/* (or val/), decoded into memory."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from utils.data.images import Dataset, ImageSet

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")
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
    if not root.is_dir():
        raise ValueError(f"image folder {str(root)!r} does not exist: expected train/ and test/")
    train = _list_classes(_find_split(root, ("train",)))
    test = _list_classes(_find_split(root, ("test", "val")))
    _check_same_classes(root, list(train), list(test))
    num_files = sum(len(files) for split in (train, test) for files in split.values())
    _check_memory(root, num_files * 3 * image_size**2, memory_limit_bytes)
    return Dataset(
        _load_split(train, image_size, f"{root.name} train"),
        _load_split(test, image_size, f"{root.name} test"),
        root.name,
    )


def _find_split(root: Path, names: Sequence[str]) -> Path:
    """Return the first folder of `names` that has class folders (ImageNet's test/ has none)."""
    for name in names:
        if (root / name).is_dir() and _subfolders(root / name):
            return root / name
    expected = " or ".join(f"{name}/<class>/" for name in names)
    raise ValueError(f"image folder {str(root)!r}: expected {expected} with images, found none")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _list_classes(split: Path) -> dict[str, list[Path]]:
    """Return {class name: its image files}, both sorted."""
    classes = {folder.name: _list_images(folder) for folder in _subfolders(split)}
    for name, files in classes.items():
        if not files:
            suffixes = " ".join(IMAGE_SUFFIXES)
            raise ValueError(f"no images in {str(split / name)!r}: expected files in {suffixes}")
    return classes


def _list_images(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def _check_same_classes(root: Path, train: list[str], test: list[str]) -> None:
    only_one = sorted(set(train) ^ set(test))
    if only_one:
        where = "train" if only_one[0] in train else "test"
        raise ValueError(
            f"image folder {str(root)!r}: class {only_one[0]!r} is in the {where} split alone "
            f"({len(train)} train classes, {len(test)} test classes), expected the same classes"
        )


def _check_memory(root: Path, needed: int, limit: int) -> None:
    if needed > limit:
        raise ValueError(
            f"image folder {str(root)!r} needs {needed / 2**30:.3g} GiB of memory once decoded, "
            f"expected at most {limit / 2**30:.3g} GiB: use fewer or smaller images"
        )


def _load_split(classes: dict[str, list[Path]], image_size: int, name: str) -> ImageSet:
    files = [path for paths in classes.values() for path in paths]
    counts = torch.tensor([len(paths) for paths in classes.values()])
    labels = torch.arange(len(classes)).repeat_interleave(counts)
    images = torch.empty(len(files), 3, image_size, image_size, dtype=torch.uint8)
    pixels = images.numpy()  # the same memory

    def decode(index: int) -> None:
        pixels[index] = _decode(files[index], image_size)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        done = pool.map(decode, range(len(files)))
        quiet = len(files) <= _QUIET_FILES
        for _ in tqdm(done, f"decoding {name}", len(files), disable=quiet, unit="image"):
            pass
    return ImageSet(images, labels, tuple(classes), name)


def _decode(path: Path, image_size: int) -> np.ndarray:
    """Return the RGB pixels of one file, uint8 [3, image_size, image_size]."""
    try:
        with Image.open(path) as image:
            square = _resize_and_crop(image.convert("RGB"), image_size)
    except Exception as error:  # PIL's decoders raise a dozen unrelated types on damaged files
        raise ValueError(
            f"cannot decode {str(path)!r}: expected a whole image ({error})"
        ) from error
    return np.asarray(square).transpose(2, 0, 1)


def _resize_and_crop(image: Image.Image, image_size: int) -> Image.Image:
    shorter = min(image.size)
    if shorter != image_size:
        width, height = (int(image_size * side / shorter) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (round((side - image_size) / 2) for side in image.size)
    return image.crop((left, top, left + image_size, top + image_size))
