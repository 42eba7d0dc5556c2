"""The datasets by name."""

from pathlib import Path

from utils.data.cifar10 import load_cifar10
from utils.data.image_folder import load_image_folder
from utils.data.imagenet import load_imagenet
from utils.data.images import Dataset
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
    name: str, data_dir: str | Path, *, image_size: int, seed: int = 0, workers: int = 0
) -> Dataset:
    """Return the dataset called `name`, its images `image_size` pixels high and wide.

    `data_dir` is where the images are (shapes needs none); `seed` draws shapes (the others have
    their images); `workers` processes read imagenet (the others are held in memory).

    Raises:
        ValueError: an unknown name, a size that the dataset does not have, or what its own
            loader raises.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset: expected one of {', '.join(DATASETS)}, got {name!r}")
    if image_size != _FIXED_SIZES.get(name, image_size):
        raise ValueError(
            f"image size of dataset {name!r}: expected {_FIXED_SIZES[name]} pixels, "
            f"got {image_size}; --dataset folder takes any size"
        )
    return DATASETS[name](data_dir, image_size, seed, workers)


def default_normalization(name: str) -> str:
    """Return the normalization that networks for the dataset `name` are trained with."""
    return "imagenet" if name == "imagenet" else "cifar10"
