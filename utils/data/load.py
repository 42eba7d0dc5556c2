"""The datasets by name; what loads one is imported when it is loaded."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # names are told before torch is imported, which takes seconds
    from utils.data.images import Dataset

_MOST_WORKERS = 16  # by default; each holds batches of its own


def _cifar10(data_dir: str | Path, *_: Any) -> "Dataset":
    from utils.data.cifar10 import load_cifar10

    return load_cifar10(data_dir)


def _imagenet(data_dir: str | Path, image_size: int, seed: int, workers: int) -> "Dataset":
    from utils.data.imagenet import load_imagenet

    return load_imagenet(data_dir, image_size, workers)


def _folder(data_dir: str | Path, image_size: int | tuple[int, int], *_: Any) -> "Dataset":
    from utils.data.image_folder import load_image_folder

    return load_image_folder(data_dir, image_size)


def _shapes(data_dir: str | Path, image_size: int, seed: int, workers: int) -> "Dataset":
    from utils.data.synthetic import make_shapes

    return make_shapes(seed=seed)


# name -> loader of (data_dir, image_size, seed, workers)
DATASETS = {"cifar10": _cifar10, "imagenet": _imagenet, "folder": _folder, "shapes": _shapes}
_FIXED_SIZES = {"cifar10": 32, "shapes": 32}  # pixels


def load_dataset(
    name: str,
    data_dir: str | Path,
    *,
    image_size: int | tuple[int, int],
    channels: int = 3,
    seed: int = 0,
    workers: int = 0,
) -> "Dataset":
    """Return the dataset called `name`, its images of `image_size`: height and width, or both.

    With one channel they are gray: the luma of ITU-R 601, which keeps what is gray already.
    `data_dir` is where the images are (shapes needs none); `seed` draws shapes (the others have
    their images); `workers` processes read imagenet (the others are held in memory).

    Raises:
        ValueError: an unknown name, a size or channels that the dataset does not have, or what its
            own loader raises.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset: expected one of {', '.join(DATASETS)}, got {name!r}")
    size = image_size if isinstance(image_size, int) else _side(image_size)
    if name != "folder" and size != _FIXED_SIZES.get(name, size):
        raise ValueError(
            f"image size of dataset {name!r}: expected {_FIXED_SIZES[name]} pixels, "
            f"got {size}; --image_size {_FIXED_SIZES[name]} lets a network read them, and "
            "--dataset folder takes any size"
        )
    if channels not in (1, 3) or (name == "imagenet" and channels != 3):
        raise ValueError(
            f"dataset {name!r} for a network that reads {channels} channels: expected one that "
            f"reads 3{'' if name == 'imagenet' else ', or 1 of gray images'}"
        )
    if name == "imagenet" and not isinstance(size, int):
        raise ValueError(f"image size of dataset 'imagenet': expected a square, got {image_size}")
    found = DATASETS[name](data_dir, size, seed, workers)
    if channels == 3:
        return found
    from utils.data.images import gray

    return gray(found)


def own_image_size(name: str, data_dir: str | Path) -> tuple[int, int]:
    """Return height and width of a dataset's images: in a folder, those of the first train image.

    Raises:
        ValueError: what `load_image_folder` raises.
    """
    if name == "folder":
        from utils.data.image_folder import first_image_size

        return first_image_size(data_dir)
    side = _FIXED_SIZES.get(name, 224)
    return side, side


def _side(size: tuple[int, int]) -> int | tuple[int, int]:
    height, width = size
    return height if height == width else (height, width)


def default_workers() -> int:
    """Return the number of CPU cores that this process may use, 16 at most."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
    return min(os.cpu_count() or 1, _MOST_WORKERS)
