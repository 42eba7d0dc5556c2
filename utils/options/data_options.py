"""The options of what a command computes with: the device, the images and the network."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from models.registry import ARCHITECTURES
from models.specs import folder_name, is_own, read_arguments
from utils.data.load import DATASETS, default_workers
from utils.data.normalization import (
    NORMALIZATIONS,
    default_normalization,
    mean_and_deviation,
)
from utils.options.devices import check_spelling
from utils.runs.options import option, refuse_below

if TYPE_CHECKING:  # the command line is parsed before torch is imported, which takes seconds
    from utils.removal.network_file import BuiltBy

# Why official flags that adjust a checkpoint have nothing to do here.
LOADS = "a checkpoint loads as it is, bare or under state_dict, with or without module."


@dataclass(frozen=True)
class DeviceOptions:
    """Where a command computes."""

    groups_first: ClassVar = ("network", "data", "pruning", "automatic rates", "training")

    seed: int = option(0, "random seed", group="run")
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

    dataset: str = option("cifar10", "dataset", choices=tuple(DATASETS), group="data")
    data_dir: Path = option(
        Path("data"),
        "folder of cifar10, or of image folders: train/ and test/; for imagenet, "
        "ILSVRC2012_img_train/ or train/, and val/",
        group="data",
    )
    normalization: str = option(
        "auto",
        f"mean and standard deviation of the pixels: {', '.join(NORMALIZATIONS)}, or numbers: "
        "MEAN,STD, or those of each channel, all means first; auto: imagenet for --dataset "
        "imagenet, else cifar10",
        group="data",
    )
    eval_batch_size: int = option(100, "images per batch in evaluation", group="data")
    workers: int = option(
        default_workers(),
        "processes that decode imagenet, shared by torchrun's; 0: the command itself decodes",
        group="data",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_below(self, 0, "workers")
        refuse_below(self, 1, "eval_batch_size")
        if self.normalization == "auto":  # so that all that is written names the one used
            object.__setattr__(self, "normalization", default_normalization(self.dataset))
        channels = 1 if self.normalization.count(",") == 1 else 3
        mean_and_deviation(self.normalization, channels)  # refuses what is none


class OwnSpecError(ValueError):
    """A file names a network of the user's own; `words` are what repeats the command with it."""

    def __init__(self, message: str, words: str):
        super().__init__(message)
        self.words = words


def trusted(said: "BuiltBy", path: str | Path) -> "BuiltBy":
    """Return what a file says that its network was built by, if that may be imported unasked.

    Raises:
        OwnSpecError: it is code of the user's own.
    """
    if said.spec and not is_own(said.spec):
        return said
    name = said.spec or "FILE.py:CALLABLE"
    words = ["--arch", name]
    words += ["--arch_args", said.arguments] if said.arguments else []
    if said.image_size:
        words += ["--image_size", ",".join(map(str, said.image_size))]
    raise OwnSpecError(
        f"{path} holds a pruned network of {name}, which is not imported because a file "
        f"says so: expected {shlex.join(words)}",
        shlex.join(words),
    )


def named_in(path: str | Path) -> "BuiltBy | None":
    """Return what the network in a pruned file was built by; None of a dense checkpoint.

    Raises:
        ValueError: the file cannot be loaded, or names code of the user's own (`OwnSpecError`).
    """
    from utils.removal.network_file import built_by, is_pruned
    from utils.runs.checkpoint import load_file

    content = load_file(path)
    return trusted(built_by(content, path), path) if is_pruned(content) else None


def arch_name(word: str) -> str:
    """Return the architecture's name without the ending that the official README gives some."""
    return word.removesuffix("_convwise")


@dataclass(frozen=True)
class ArchOptions:
    """Which network a command builds; a pruned file's, where only the file is named."""

    usual_arch: ClassVar = "vgg_16_bn"

    arch: str | None = option(
        None,
        f"one of {', '.join(ARCHITECTURES)}; or torchvision:NAME, timm:NAME, or your own: "
        "FILE.py:CALLABLE or package.module:CALLABLE (default: the one that a pruned file names, "
        "else vgg_16_bn)",
        metavar="ARCH",
        type=arch_name,
        group="network",
    )
    arch_args: str = option(
        "",
        "keyword arguments of the network's constructor, e.g. width=32,depth=3",
        metavar="NAME=VALUE,...",
        group="network",
    )
    image_size: tuple[int, ...] = option(
        (),
        "height and width of the input images, one number for both (default: the network's own "
        "size, or the dataset's)",
        metavar="H[,W]",
        group="network",
    )

    def __post_init__(self) -> None:
        if self.arch is None and self.usual_arch:  # else it is asked when it is loaded
            file = self.network_file()
            named = None if file is None else named_in(file)
            object.__setattr__(self, "arch", named.spec if named else self.usual_arch)
            if named and not self.arch_args:
                object.__setattr__(self, "arch_args", named.arguments)
        super().__post_init__()
        read_arguments(self.arch_args)
        if len(self.image_size) > 2 or any(side < 1 for side in self.image_size):
            given = ",".join(map(str, self.image_size))
            raise ValueError(f"--image_size is {given!r}: expected H or H,W of at least 1 pixel")

    def network_file(self) -> Path | None:
        """Return the file that the network comes from, where the options name one."""
        return None

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
        may_stand_alone="a stopped run continues by itself",
        group="network",
    )
    untrained: bool = option(
        False,
        "without a checkpoint, use the network's initial weights, which are random for most",
        group="network",
    )

    def network_file(self) -> Path | None:
        """Return the file that the network comes from, where the options name one."""
        return self.resume
