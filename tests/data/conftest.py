"""Image sets and folders small enough to look at."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils.data.images import ImageSet

LOSSLESS = Path(__file__).parents[3] / "shared" / "data" / "cifar10_lossless.npz"


@pytest.fixture
def make_set():
    """A function of (number of images, size, number of classes) that returns a random set."""

    def make(num_images: int, size: int = 8, num_classes: int = 3) -> ImageSet:
        generator = torch.Generator().manual_seed(num_images)
        images = torch.randint(0, 256, (num_images, 3, size, size), generator=generator)
        labels = torch.arange(num_images) % num_classes
        classes = tuple(f"class {index}" for index in range(num_classes))
        return ImageSet(images.to(torch.uint8), labels, classes, "random")

    return make


@pytest.fixture
def write_image():
    """A function that writes an image of random pixels and returns them, uint8 [H, W, 3]."""

    def write(path: Path, width: int = 8, height: int = 8, seed: int = 0) -> np.ndarray:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return pixels

    return write


@pytest.fixture(scope="session")
def cifar10_arrays():
    """{name: array} of real CIFAR-10 images, where they are kept beside the repository."""
    if not LOSSLESS.is_file():
        pytest.skip(f"{LOSSLESS.name} is not beside the repository")
    with np.load(LOSSLESS) as arrays:
        return dict(arrays)
