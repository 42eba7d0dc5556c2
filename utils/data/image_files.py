"""Image files in class folders: <split>/<class>/*, found and decoded."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")
ClassFiles = dict[str, list[str]]  # {class name: its files}, both sorted


def list_splits(
    root: Path, train_names: Sequence[str], test_names: Sequence[str]
) -> tuple[ClassFiles, ClassFiles]:
    """Return the train and the test files, each of the first folder named that has class folders.

    Files in subfolders belong to the class, too; hidden ones and other suffixes are passed over.

    Raises:
        ValueError: a folder is missing or holds no images, or the splits have different classes.
    """
    if not root.is_dir():
        expected = f"{train_names[-1]}/ and {test_names[0]}/"
        raise ValueError(f"image folder {str(root)!r} does not exist: expected {expected}")
    train = _list_classes(_find_split(root, train_names))
    test = _list_classes(_find_split(root, test_names))
    _check_same_classes(root, list(train), list(test))
    return train, test


def labels_of(classes: ClassFiles) -> tuple[list[str], Tensor]:
    """Return all files, class by class, with their labels [N] int64."""
    files = [path for paths in classes.values() for path in paths]
    counts = torch.tensor([len(paths) for paths in classes.values()])
    return files, torch.arange(len(classes)).repeat_interleave(counts)


def decode_image(path: str, picture: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Return the pixels of what `picture` makes of the image, uint8 [3, H, W].

    `picture` is given the opened file, not decoded yet, and returns an RGB image.

    Raises:
        ValueError: the file is not a whole image.
    """
    try:
        with Image.open(path) as image:
            return np.array(picture(image)).transpose(2, 0, 1)
    except Exception as error:  # PIL's decoders raise a dozen unrelated types on damaged files
        raise ValueError(f"cannot decode {path!r}: expected a whole image ({error})") from error


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


def _list_classes(split: Path) -> ClassFiles:
    classes = {folder.name: _list_images(folder) for folder in _subfolders(split)}
    for name, files in classes.items():
        if not files:
            suffixes = " ".join(IMAGE_SUFFIXES)
            raise ValueError(f"no images in {str(split / name)!r}: expected files in {suffixes}")
    return classes


def _list_images(folder: Path) -> list[str]:
    """Return the image files under `folder`, as words: a million `Path`s are slow and large."""
    return sorted(
        os.path.join(place, name)  # noqa: PTH118
        for place, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
    )


def _check_same_classes(root: Path, train: list[str], test: list[str]) -> None:
    only_one = sorted(set(train) ^ set(test))
    if only_one:
        where = "train" if only_one[0] in train else "test"
        raise ValueError(
            f"image folder {str(root)!r}: class {only_one[0]!r} is in the {where} split alone "
            f"({len(train)} train classes, {len(test)} test classes), expected the same classes"
        )
