"""What a command reads: the device, the images and the network that its options name."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from models.registry import ARCHITECTURES, architecture, build_model
from utils.data.gpu_loader import batches, num_batches
from utils.data.image_stream import default_workers
from utils.data.images import NORMALIZATIONS, ImageSource, split_validation
from utils.data.load import DATASETS, default_normalization, load_dataset
from utils.metrics.accuracy import Accuracy, measure_accuracy
from utils.removal.network_file import Network, load_network
from utils.runs import processes
from utils.runs.job_folder import JobFolder
from utils.runs.options import option
from utils.training.loop import epoch_seed

RESULTS = Path("result")


@dataclass(frozen=True)
class DeviceOptions:
    """Where a command computes."""

    seed: int = option(0, "seed of everything random", group="run")
    device: str = option("auto", "auto, cpu, cuda or cuda:N", group="run")
    gpu: str | None = option(None, "GPU number, as the official code spells it", group="run")
    json: bool = option(False, "print one JSON object and nothing else", group="run")

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed is {self.seed}: expected at least 0, less than 2**63")
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
        "mean and deviation of the pixels; auto: imagenet for --dataset imagenet, else cifar10",
        choices=("auto", *NORMALIZATIONS),
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


def arch_name(word: str) -> str:
    """Return the architecture's name without the ending that the official README gives some."""
    return word.removesuffix("_convwise")


@dataclass(frozen=True)
class ArchOptions:
    """Which architecture a command builds."""

    arch: str = option(
        "vgg_16_bn", f"one of {', '.join(ARCHITECTURES)}", type=arch_name, group="network"
    )


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
        False, "take fresh random weights when there is no checkpoint", group="network"
    )


def note(message: str) -> None:
    """Tell the user something, on standard error."""
    print(message, file=sys.stderr, flush=True)


def open_device(device: str, gpu: str | None) -> torch.device:
    """Return the device to compute on; a missing GPU is said, not an error, for `--gpu`.

    Raises:
        ValueError: the device is unknown or not there.
    """
    if processes.num_processes() > 1:
        return _own_device(device, gpu)
    if gpu is not None and device == "auto":
        if not torch.cuda.is_available():
            note(f"no GPU here: --gpu {gpu} runs on the CPU")
            return torch.device("cpu")
        device = f"cuda:{gpu}"
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()  # "meta" has no numbers to give back
    except (RuntimeError, AssertionError):
        raise ValueError(
            f"--device is {device!r}: expected auto, cpu, or a GPU of this machine"
        ) from None
    return found


def _own_device(device: str, gpu: str | None) -> torch.device:
    """Return the device of this process, one of several: a GPU of its own, or the CPU.

    Raises:
        ValueError: a GPU is named, or there are fewer than processes.
    """
    index, gpus = processes.local_index(), torch.cuda.device_count()
    if gpu is not None or device not in ("auto", "cpu", "cuda"):
        name = f"--device is {device!r}" if gpu is None else f"--gpu is {gpu!r}"
        raise ValueError(
            f"{name}: expected none under torchrun, each process takes a GPU of its own "
            "(of those in CUDA_VISIBLE_DEVICES), or --device cpu"
        )
    if device == "cpu" or (device == "auto" and gpus == 0):
        return torch.device("cpu")
    if index >= gpus:
        raise ValueError(
            f"process {index} of this machine finds {gpus} GPUs: expected one for each process, "
            "start fewer with --nproc_per_node, or say --device cpu"
        )
    torch.cuda.set_device(index)  # NCCL and libraries take the current one
    return torch.device("cuda", index)


def baseline_folder(arch: str) -> JobFolder:
    """Return the folder that `train` writes an architecture's baseline into."""
    return JobFolder(RESULTS / arch / "baseline")


def checkpoint_of(options: NetworkOptions) -> Path | None:
    """Return the checkpoint to load: the one given, else the baseline that `train` wrote.

    None stands for fresh weights, which only `--untrained` allows.

    Raises:
        ValueError: there is neither; the message names both ways out.
    """
    if options.arch is not None:
        architecture(options.arch)
    if options.resume is not None:
        return options.resume
    if options.arch is None:
        raise ValueError("no network named: expected --arch ARCH, or --resume CKPT")
    best = baseline_folder(options.arch).best
    if best.exists():
        note(f"network: {best}")
        return best
    if options.untrained:
        note("network: fresh random weights (--untrained)")
        return None
    raise ValueError(
        f"no trained {options.arch}: give a checkpoint with --resume CKPT, or train one with "
        f"`python main.py train --arch {options.arch}`"
    )


def open_network(arch: str | None, checkpoint: Path | None, seed: int) -> Network:
    """Load the network that `checkpoint_of` found, on the CPU; for None, draw one by the seed.

    Raises:
        ValueError: see `load_network`.
    """
    return draw_network(arch, seed) if checkpoint is None else load_network(checkpoint, arch)


def draw_network(arch: str, seed: int, num_classes: int | None = None) -> Network:
    """Build a network, on the CPU, with fresh weights drawn by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build_model(arch, num_classes)
    return Network(model, arch, num_classes or architecture(arch).num_classes)


def open_dense_network(arch: str, checkpoint: Path | None, seed: int) -> Network:
    """Load a network as `open_network` does, but only one that is not pruned yet.

    Raises:
        ValueError: see `load_network`; or it is pruned already.
    """
    network = open_network(arch, checkpoint, seed)
    if network.form != "dense":
        raise ValueError(f"{checkpoint} is pruned already: expected a dense checkpoint")
    return network


@dataclass(frozen=True)
class Images:
    """Train, validation (or None) and test images, and how they come in batches."""

    train: ImageSource
    validation: ImageSource | None
    test: ImageSource
    name: str
    normalization: str
    eval_batch_size: int
    device: torch.device

    @property
    def num_classes(self) -> int:
        """Number of classes of the images."""
        return len(self.test.classes)

    def training_batches(
        self, batch_size: int, seed: int, stage: str
    ) -> Callable[[int, int], Iterator[tuple[Tensor, Tensor]]]:
        """Return (epoch, start) -> its shuffled, augmented batches, from number `start` on.

        Of several processes, each gets its part of every batch.

        The same epoch gives the same ones. A last batch of a single image is left out: batch norm
        cannot train on it.
        """

        def batches_of(epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
            return batches(
                self.train,
                batch_size,
                self.normalization,
                device=self.device,
                augment=True,
                seed=epoch_seed(seed, f"images of {stage}", epoch),
                drop_last=self._single_left(batch_size),
                select=lambda spans: processes.part_of_each(spans[start:]),
            )

        return batches_of

    def steps(self, batch_size: int) -> int:
        """Return the number of training batches of an epoch."""
        return num_batches(self.train, batch_size, self._single_left(batch_size))

    def _single_left(self, batch_size: int) -> bool:
        return len(self.train) > batch_size > 1 == len(self.train) % batch_size

    def evaluation_batches(self, images: ImageSource) -> Iterator[tuple[Tensor, Tensor]]:
        """Return all of `images` in order, in batches of the evaluation size.

        Of several processes, each gets a batch in turn.
        """
        how = {"device": self.device, "select": processes.in_turn}
        return batches(images, self.eval_batch_size, self.normalization, **how)

    def first_batch(self, images: ImageSource) -> Tensor:
        """Return the first evaluation batch, [N, 3, H, W], the same in every process."""
        images = images.subset(range(min(self.eval_batch_size, len(images))))
        batch, _ = next(batches(images, len(images), self.normalization, device=self.device))
        return batch

    def accuracies(self, model: nn.Module) -> Mapping[str, Accuracy]:
        """Return {"val": ..., "test": ...}, without "val" where nothing is held out."""
        sets = {"val": self.validation, "test": self.test}
        return {
            name: measure_accuracy(model, self.evaluation_batches(images))
            for name, images in sets.items()
            if images is not None
        }


def open_images(
    options: DataOptions,
    arch: str,
    device: torch.device | None = None,
    *,
    num_classes: int | None = None,
    val_fraction: float | None = None,
) -> Images:
    """Load the images that the options name and hold out `val_fraction` of train (None: nothing).

    They go to `device`, by default the one that the options name. `num_classes` is what a network
    that is there already expects.

    Raises:
        ValueError: the images cannot be loaded, or their classes are not the network's.
    """
    if options.eval_batch_size < 1:
        raise ValueError(f"--eval_batch_size is {options.eval_batch_size}: expected at least 1")
    device = device or open_device(options.device, options.gpu)
    with processes.first_ahead():  # it may have to download them
        data = load_dataset(
            options.dataset,
            options.data_dir,
            image_size=architecture(arch).image_size,
            seed=options.seed,
            workers=-(-options.workers // processes.num_processes()),  # 0 stays 0
        )
    if num_classes not in (None, len(data.train.classes)):
        raise ValueError(
            f"dataset {data.name!r} has {len(data.train.classes)} classes: "
            f"expected the {num_classes} of the network"
        )
    train, validation = data.train, None
    if val_fraction is not None:
        train, validation = split_validation(train, val_fraction, options.seed)
    return Images(
        train.to(device),
        None if validation is None else validation.to(device),
        data.test.to(device),
        data.name,
        options.normalization,
        options.eval_batch_size,
        device,
    )
