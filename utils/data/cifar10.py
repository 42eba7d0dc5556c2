"""CIFAR-10 as torchvision stores it: found on disk, or else downloaded."""

import contextlib
import sys
import warnings
from pathlib import Path

import torch

from utils.data.images import Dataset, ImageSet
from utils.runs.regular_file import check_regular


def load_cifar10(data_dir: str | Path) -> Dataset:
    """Return CIFAR-10, 50,000 train and 10,000 test images of 32x32 pixels.

    `data_dir` holds (or, after a download, will hold) the folder cifar-10-batches-py; a folder
    that is complete is used without a network.

    Raises:
        ValueError: the files are missing or damaged, and cannot be downloaded.
    """
    try:
        train, test = _load_split(data_dir, "train"), _load_split(data_dir, "test")
    except (OSError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"cifar10 is not in {str(data_dir)!r} and could not be downloaded ({error}): connect, "
            "or put cifar-10-batches-py there, or use --dataset folder or --dataset shapes"
        ) from error
    return Dataset(train, test, "cifar10")


def is_cifar10_there(data_dir: str | Path) -> bool:
    """Return whether a folder holds CIFAR-10, so that nothing is downloaded."""
    return Path(data_dir, "cifar-10-batches-py").is_dir()


def _load_split(data_dir: str | Path, split: str) -> ImageSet:
    from torchvision.datasets import CIFAR10  # takes seconds to import

    for path in sorted(Path(data_dir, CIFAR10.base_folder).glob("*")):
        check_regular(path, "cifar10's file", "one of CIFAR-10's batches")

    # torchvision prints while it downloads; standard output belongs to the command's result
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        # the official pickles are Python 2's; numpy 2.4.0 to 2.4.4 warn of how those spell a dtype
        warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
        source = CIFAR10(data_dir, train=split == "train", download=True)
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()  # [N, 3, 32, 32]
    labels = torch.tensor(source.targets, dtype=torch.int64)
    return ImageSet(images, labels, tuple(source.classes), f"cifar10 {split}")
