"""The options of what a command computes with: the device, the images and the network."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from models.registry import ARCHITECTURES
from models.specs import folder_name, read_arguments
from utils.data.image_stream import default_workers
from utils.data.images import NORMALIZATIONS, mean_and_deviation
from utils.data.load import DATASETS, default_normalization
from utils.options.devices import check_spelling
from utils.runs.options import option

# Why official flags that adjust a checkpoint have nothing to do here.
LOADS = "a checkpoint loads as it is, bare or under state_dict, with or without module."


@dataclass(frozen=True)
class DeviceOptions:
    """Where a command computes."""

    groups_first: ClassVar = ("network", "data", "pruning", "automatic rates", "training")

    seed: int = option(0, "seed of everything random", group="run")
    device: str = option("auto", "auto, cpu, cuda or cuda:N", group="run")
    gpu: str | None = option(None, "GPU number, as the official code spells it", group="run")
    json: bool = option(False, "print one JSON object and nothing else", group="run")

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed is {self.seed}: expected at least 0, less than 2**63")
        if self.device != "auto":
            check_spelling(self.device)
        if self.gpu is not None and not self.gpu.isdecimal():
            expected = "the number of one GPU"
            if all(number.isdecimal() for number in self.gpu.split(",")):
                count = self.gpu.count(",") + 1
                expected += (
                    "; several take a process each: the same words without --gpu behind "
                    f"`CUDA_VISIBLE_DEVICES={self.gpu} torchrun --nproc_per_node={count}` in place "
                    "of `python`"
                )
            raise ValueError(f"--gpu is {self.gpu!r}: expected {expected}")


@dataclass(frozen=True)
class DataOptions(DeviceOptions):
    """Which images a command reads; the normalization "auto" is resolved here."""

    dataset: str = option("cifar10", "the images", choices=tuple(DATASETS), group="data")
    data_dir: Path = option(
        Path("data"),
        "folder of cifar10, or of image folders: train/ and test/; for imagenet, "
        "ILSVRC2012_img_train/ or train/, and val/",
        group="data",
    )
    normalization: str = option(
        "auto",
        f"mean and deviation of the pixels: {', '.join(NORMALIZATIONS)}, or MEAN,DEVIATION, or "
        "those of each channel, all means first; auto: imagenet for --dataset imagenet, else "
        "cifar10",
        group="data",
    )
    eval_batch_size: int = option(100, "images per batch in evaluation", group="data")
    workers: int = option(
        default_workers(),
        "processes that read imagenet, for all of torchrun's together; 0: the command itself",
        group="data",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers < 0:
            raise ValueError(f"--workers is {self.workers}: expected 0 or more")
        if self.normalization == "auto":  # so that all that is written names the one used
            object.__setattr__(self, "normalization", default_normalization(self.dataset))
        channels = 1 if self.normalization.count(",") == 1 else 3
        mean_and_deviation(self.normalization, channels)  # refuses what is none


def arch_name(word: str) -> str:
    """Return the architecture's name without the ending that the official README gives some."""
    return word.removesuffix("_convwise")


@dataclass(frozen=True)
class ArchOptions:
    """Which architecture a command builds."""

    arch: str = option(
        "vgg_16_bn",
        f"one of {', '.join(ARCHITECTURES)}; or torchvision:NAME, timm:NAME, or your own: "
        "FILE.py:CALLABLE or package.module:CALLABLE",
        type=arch_name,
        group="network",
    )
    arch_args: str = option(
        "",
        "keyword arguments that the network is built with, e.g. width=32,depth=3",
        metavar="NAME=VALUE,...",
        group="network",
    )
    image_size: tuple[int, ...] = option(
        (),
        "height and width of the images that the network reads, one number for both (default: the "
        "network's own or, where it does not say, the dataset's)",
        metavar="H[,W]",
        group="network",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        read_arguments(self.arch_args)
        if len(self.image_size) > 2 or any(side < 1 for side in self.image_size):
            given = ",".join(map(str, self.image_size))
            raise ValueError(f"--image_size is {given!r}: expected H or H,W of at least 1 pixel")

    @property
    def in_registry(self) -> bool:
        """Whether the network is one of this repository's."""
        return self.arch in ARCHITECTURES

    @property
    def arch_folder(self) -> str:
        """Name of the folders that belong to the network."""
        return folder_name(self.arch, self.arch_args)


@dataclass(frozen=True)
class NetworkOptions(ArchOptions):
    """Which network a command reads."""

    resume: Path | None = option(
        None,
        "checkpoint, dense or pruned",
        flags=("--pretrain_dir", "--checkpoint"),
        metavar="CKPT",
        may_stand_alone="a run that was stopped goes on by itself",
        group="network",
    )
    untrained: bool = option(
        False,
        "take the weights that the network is built with, for most fresh random ones, when there "
        "is no checkpoint",
        group="network",
    )
