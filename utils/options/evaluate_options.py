"""The options of `main.py evaluate`, and of what tests a network as it does."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from utils.options.data_options import DataOptions, DeviceOptions, NetworkOptions, arch_name
from utils.runs.choices import RUNTIMES
from utils.runs.options import option, refuse_below


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
        from utils.options.networks import checkpoint_of

        return checkpoint_of(self) if self.test_model_dir is None else self.network_file()

    def network_file(self) -> Path | None:
        """Return the file that the network comes from, where the options name one."""
        if self.test_model_dir is None:
            return super().network_file()
        return checkpoint_in("--test_model_dir", self.test_model_dir)


@dataclass(frozen=True)
class TestedFileOptions(TestedOptions):
    """Which network is tested, where its file may name the architecture."""

    usual_arch: ClassVar = None

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
        "architecture of --against, if it is another one",
        metavar="ARCH",
        type=arch_name,
        group="network",
    )
    split: str = option("test", "which images", choices=("train", "test"), group="data")
    layers: bool = option(
        False, "also show costs and zeros of every layer and tensor", group="measurement"
    )
    bits: tuple[int, ...] = option(
        (32, 16, 8), "bits per parameter for which sizes are shown", group="measurement"
    )
    batch_sizes: tuple[int, ...] = option(
        (1,),
        "batch sizes at which time and memory are measured",
        flags=("--latency_batch_size",),
        group="measurement",
    )
    threads: tuple[int, ...] = option(
        (),
        "numbers of CPU threads to time with; none: torch's default",
        group="measurement",
    )
    sparse: bool = option(
        False,
        "also time layers with zeros in torch.sparse, and the network with those that get faster",
        group="measurement",
    )
    repeats: int = option(30, "timed passes of every setting", group="measurement")
    runtime: str = option(
        "eager",
        "runtime for the latency; compile, which is torch.compile, takes minutes",
        choices=RUNTIMES,
        group="measurement",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bits", "batch_sizes", "threads"):
            values = getattr(self, name)
            if any(value < 1 for value in values) or not (values or name == "threads"):
                given = ",".join(map(str, values)) or "empty"
                raise ValueError(f"--{name} is {given}: expected numbers of 1 or more")
        refuse_below(self, 1, "repeats")
        if self.against_arch is not None and self.against is None:
            raise ValueError(
                f"--against_arch is {self.against_arch!r} without --against: expected both"
            )


def checkpoint_in(flag: str, place: Path) -> Path:
    """Return what the job folder `place`, of these commands or the official ones, ends with.

    Raises:
        ValueError: it holds none of the files that they write.
    """
    from utils.runs.job_folder import JobFolder

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
