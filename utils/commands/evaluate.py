"""`main.py evaluate`: what a checkpoint, dense or pruned, gets right, and what it costs."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from models.registry import architecture, example_images
from utils.benchmarks.sparse_report import sparse_report
from utils.commands.measuring import check_normalization
from utils.data.images import ImageSource
from utils.metrics.accuracy import measure_accuracy
from utils.metrics.cost import counts, physical_cost
from utils.metrics.latency import compare_latency, using_threads
from utils.metrics.memory import allocated_bytes, peak_activation_bytes
from utils.metrics.size import parameter_size
from utils.metrics.sparsity import total_zeros, zero_filters, zero_values
from utils.options.inputs import (
    DataOptions,
    DeviceOptions,
    Images,
    NetworkOptions,
    arch_name,
    checkpoint_of,
    open_device,
    open_images,
    open_network,
)
from utils.pruning.scores import filters_first
from utils.removal.network_file import Network
from utils.reports.side_by_side import ratios, remarks
from utils.runs.compiler import compiled
from utils.runs.environment import environment
from utils.runs.job_folder import JobFolder
from utils.runs.options import option


@dataclass(frozen=True)
class TestedOptions(NetworkOptions):
    """Which network is tested."""

    test_model_dir: Path | None = option(
        None,
        "checkpoint to test instead, or a job folder, also of the official code",
        metavar="CKPT",
        group="network",
    )

    def tested(self) -> Path | None:
        """Return the checkpoint to test; see `checkpoint_of`."""
        if self.test_model_dir is None:
            return checkpoint_of(self)
        return _checkpoint_in("--test_model_dir", self.test_model_dir)


@dataclass(frozen=True)
class TestedFileOptions(TestedOptions):
    """Which network is tested, where its file may name the architecture."""

    arch: str | None = option(
        None,
        "architecture; a pruned file names its own",
        metavar="ARCH",
        type=arch_name,
        group="network",
    )


@dataclass(frozen=True)
class EvaluateConfig(TestedFileOptions, DataOptions, DeviceOptions):
    """Options of `main.py evaluate`."""

    against: Path | None = option(
        None,
        "second checkpoint or job folder, measured beside the first, on the same images and in "
        "turns",
        metavar="CKPT",
        group="network",
    )
    against_arch: str | None = option(
        None,
        "its architecture, where it is another one",
        metavar="ARCH",
        type=arch_name,
        group="network",
    )
    split: str = option("test", "which images", choices=("train", "test"), group="data")
    layers: bool = option(
        False, "costs and zeros of every layer and tensor, too", group="measurement"
    )
    bits: tuple[int, ...] = option(
        (32, 16, 8), "bits per parameter to give the size at", group="measurement"
    )
    batch_sizes: tuple[int, ...] = option(
        (1,),
        "images of a forward pass whose time and memory are measured",
        flags=("--latency_batch_size",),
        group="measurement",
    )
    threads: tuple[int, ...] = option(
        (),
        "numbers of CPU threads to time it with; none: as many as torch takes",
        group="measurement",
    )
    sparse: bool = option(
        False,
        "time layers that hold zeros by torch.sparse, too, and the network with those it speeds up",
        group="measurement",
    )
    repeats: int = option(30, "timed passes of every setting", group="measurement")
    compile: bool = option(
        False,
        "time the networks compiled by torch.compile, which takes minutes",
        group="measurement",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bits", "batch_sizes", "threads"):
            values = getattr(self, name)
            if any(value < 1 for value in values) or not (values or name == "threads"):
                given = ",".join(map(str, values)) or "empty"
                raise ValueError(f"--{name} is {given}: expected numbers of 1 or more")
        if self.repeats < 1:
            raise ValueError(f"--repeats is {self.repeats}: expected 1 or more")
        if self.against_arch is not None and self.against is None:
            raise ValueError(
                f"--against_arch is {self.against_arch!r} without --against: expected both"
            )


@dataclass(frozen=True)
class Tested:
    """A network that is measured, and the file that it came from (None: drawn by the seed)."""

    network: Network
    path: Path | None

    @property
    def model(self) -> nn.Module:
        """The network itself."""
        return self.network.model


def evaluate_command(config: EvaluateConfig) -> dict[str, Any]:
    """Measure a network, and with `against` a second one beside it; return what was found.

    Raises:
        ValueError: bad input.
    """
    device = open_device(config.device, config.gpu)
    tested = _open_tested(config)
    first = tested[0].network
    images = open_images(config, first.arch, device, num_classes=first.num_classes)
    chosen = images.test if config.split == "test" else images.train
    for one in tested:
        one.model.to(device)
    latencies = _latencies([one.model for one in tested], images.first_batch(chosen)[:1], config)
    found = [
        _measured(one, images, chosen, config)
        | {"latency_ms": latency[0]["median_ms"], "latency": latency}
        for one, latency in zip(tested, latencies, strict=True)
    ]
    return {
        "command": "evaluate",
        **found[0],
        "dataset": chosen.name,
        "normalization": config.normalization,
        **({"against": found[1], "ratios": ratios(*found)} if config.against else {}),
        "remarks": remarks(*found),
        "environment": environment(device),
    }


def _open_tested(config: EvaluateConfig) -> list[Tested]:
    """Return the network to measure, and behind it the one to measure it against, if any.

    Raises:
        ValueError: one cannot be loaded, or they do not read the same images.
    """
    path = config.tested()
    first = Tested(open_network(config.arch, path, config.seed), path)
    check_normalization(first.network, path, config.normalization)
    if config.against is None:
        return [first]
    path = _checkpoint_in("--against", config.against)
    arch = config.against_arch or first.network.arch
    other = Tested(open_network(arch, path, config.seed), path)
    check_normalization(other.network, path, config.normalization)
    size, expected = (architecture(one.network.arch).image_size for one in (other, first))
    classes = other.network.num_classes
    if (size, classes) != (expected, first.network.num_classes):
        raise ValueError(
            f"--against {path} tells {classes} classes of {size} x {size} images apart: expected "
            f"{first.network.num_classes} of {expected} x {expected}, as the first network does"
        )
    return [first, other]


def _measured(
    tested: Tested, images: Images, chosen: ImageSource, config: EvaluateConfig
) -> dict[str, Any]:
    """Return all that is measured of one network but its latency, as plain JSON values."""
    network, model, path = tested.network, tested.model, tested.path
    accuracy = measure_accuracy(model, images.evaluation_batches(chosen))
    cost = physical_cost(model, example_images(network.arch).to(images.device))
    values, filters = zero_values(model), zero_filters(model, filters_first)
    found = {
        "arch": network.arch,
        "checkpoint": None if path is None else str(path),
        "form": network.form,
        **accuracy.as_dict(),
        **counts(cost),
        "uncounted": list(cost.uncounted),
        "size_bytes": None if path is None else Path(path).stat().st_size,
        "sizes": [asdict(parameter_size(model, bits)) for bits in config.bits],
        "zero_values": total_zeros(values),
        "zero_filters": total_zeros(filters),
        "memory": _memory(model, images.first_batch(chosen)[:1], config),
    }
    if config.layers:
        found["layers"] = [asdict(layer) for layer in cost.layers]
        found["zeros_per_tensor"] = [asdict(row) for row in values]
        found["zero_filters_per_conv"] = [asdict(row) for row in filters]
    if config.sparse:
        found["sparse"] = _sparse(model, images.first_batch(chosen)[:1], config)
    return found


def _memory(model: nn.Module, image: Tensor, config: EvaluateConfig) -> list[dict[str, Any]]:
    """Return the memory that activations need, at every batch size."""
    found = []
    for batch_size in config.batch_sizes:
        batch = _repeated(image, batch_size)
        peak, allocated = peak_activation_bytes(model, batch), allocated_bytes(model, batch)
        found.append({"batch_size": batch_size, "peak_bytes": peak, "allocated_bytes": allocated})
    return found


def _latencies(
    models: Sequence[nn.Module], image: Tensor, config: EvaluateConfig
) -> list[list[dict[str, Any]]]:
    """Return the latencies of each model, timed in turns, at every number of threads and images."""
    found: list[list[dict[str, Any]]] = [[] for _ in models]
    for threads, batch_size in itertools.product(config.threads or (None,), config.batch_sizes):
        timed = {str(number): model for number, model in enumerate(models)}
        with using_threads(threads):
            if config.compile:
                torch.compiler.reset()  # each setting gets code of its own, however many there are
                timed = {name: compiled(model, image.device) for name, model in timed.items()}
            times = compare_latency(timed, _repeated(image, batch_size), config.repeats, warmup=3)
        for rows, latency in zip(found, times.values(), strict=True):
            speed = {
                "repeats": config.repeats,
                "images_per_second": latency.images_per_second,
                "compiled": config.compile,
            }
            rows.append(asdict(latency) | speed)
    return found


def _sparse(model: nn.Module, image: Tensor, config: EvaluateConfig) -> list[dict[str, Any]]:
    """Return what torch.sparse makes of the zeros, at every number of threads and images."""
    found = []
    for threads, batch_size in itertools.product(config.threads or (None,), config.batch_sizes):
        with using_threads(threads):
            found.append(sparse_report(model, _repeated(image, batch_size), config.repeats))
    return found


def _repeated(image: Tensor, batch_size: int) -> Tensor:
    """Return a batch of `image` [1, C, H, W] over and over."""
    return image.expand(batch_size, -1, -1, -1).contiguous()


def _checkpoint_in(flag: str, place: Path) -> Path:
    """Return what the job folder `place`, of these commands or the official ones, ends with.

    Raises:
        ValueError: it holds none of the files that they write.
    """
    if not place.is_dir():
        return place
    job = JobFolder(place)
    convs = {
        int(match[1]): path
        for path in place.glob("pruned_checkpoint/*.pt")
        if (match := re.search(r"_cov(\d+)$", path.stem))
    }
    last = [convs[max(convs)]] if convs else []
    found = [path for path in (job.pruned, job.best, place / "model_best.pth.tar") if path.exists()]
    if not found + last:
        raise ValueError(
            f"{flag} {place} holds no checkpoint: expected pruned.pt, "
            "checkpoints/best.pt, model_best.pth.tar or pruned_checkpoint/ARCH_cov<i>.pt"
        )
    return (found + last)[0]
