"""The datasets by name."""

from pathlib import Path

from utils.data.cifar10 import load_cifar10
from utils.data.image_folder import first_image_size, load_image_folder
from utils.data.imagenet import load_imagenet
from utils.data.images import Dataset, gray
from utils.data.synthetic import make_shapes

# name -> loader of (data_dir, image_size, seed, workers)
DATASETS = {
    "cifar10": lambda data_dir, image_size, seed, workers: load_cifar10(data_dir),
    "imagenet": lambda data_dir, image_size, seed, workers: load_imagenet(
        data_dir, image_size, workers
    ),
    "folder": lambda data_dir, image_size, seed, workers: load_image_folder(data_dir, image_size),
    "shapes": lambda data_dir, image_size, seed, workers: make_shapes(seed=seed),
}
_FIXED_SIZES = {"cifar10": 32, "shapes": 32}  # pixels


def load_dataset(
    name: str,
    data_dir: str | Path,
    *,
    image_size: int | tuple[int, int],
    channels: int = 3,
    seed: int = 0,
    workers: int = 0,
) -> Dataset:
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
    return gray(found) if channels == 1 else found


def own_image_size(name: str, data_dir: str | Path) -> tuple[int, int]:
    """Return height and width of a dataset's images: in a folder, those of the first train image.

    Raises:
        ValueError: what `load_image_folder` raises.
    """
    if name == "folder":
        return first_image_size(data_dir)
    side = _FIXED_SIZES.get(name, 224)
    return side, side


def _side(size: tuple[int, int]) -> int | tuple[int, int]:
    height, width = size
    return height if height == width else (height, width)


def default_normalization(name: str) -> str:
    """Return the normalization that networks for the dataset `name` are trained with."""
    return "imagenet" if name == "imagenet" else "cifar10"
