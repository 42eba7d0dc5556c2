"""`main.py evaluate`: accuracy, cost, size and latency of a checkpoint, dense or pruned."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.registry import example_images
from utils.commands.inputs import (
    DataOptions,
    DeviceOptions,
    NetworkOptions,
    arch_name,
    checkpoint_of,
    open_device,
    open_images,
    open_network,
)
from utils.metrics.accuracy import measure_accuracy
from utils.metrics.cost import physical_cost
from utils.metrics.latency import measure_latency
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
        return _checkpoint_in(self.test_model_dir)


@dataclass(frozen=True)
class EvaluateConfig(TestedOptions, DataOptions, DeviceOptions):
    """Options of `main.py evaluate`."""

    arch: str | None = option(
        None,
        "architecture; a pruned file names its own",
        metavar="ARCH",
        type=arch_name,
        group="network",
    )
    split: str = option("test", "which images", choices=("train", "test"), group="data")
    latency_batch_size: int = option(1, "images per timed forward pass", group="run")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latency_batch_size < 1:
            raise ValueError(
                f"--latency_batch_size is {self.latency_batch_size}: expected 1 or more"
            )


def evaluate_command(config: EvaluateConfig) -> dict[str, Any]:
    """Measure a network and return what was found.

    Raises:
        ValueError: bad input.
    """
    device = open_device(config.device, config.gpu)
    path = config.tested()
    network = open_network(config.arch, path, config.seed)
    model = network.model.to(device)
    images = open_images(
        config, network.arch, device, seed=config.seed, num_classes=network.num_classes
    )
    chosen = images.test if config.split == "test" else images.train
    accuracy = measure_accuracy(model, images.evaluation_batches(chosen))
    cost = physical_cost(model, example_images(network.arch).to(device))
    batch, _ = next(images.evaluation_batches(chosen))
    repeated = batch[:1].expand(config.latency_batch_size, -1, -1, -1).contiguous()
    latency = measure_latency(model, repeated)
    return {
        "command": "evaluate",
        "arch": network.arch,
        "checkpoint": None if path is None else str(path),
        "form": network.form,
        "dataset": chosen.name,
        "normalization": config.normalization,
        **accuracy.as_dict(),
        "macs": cost.macs,
        "parameters": cost.parameters,
        "uncounted": list(cost.uncounted),
        "size_bytes": None if path is None else Path(path).stat().st_size,
        "latency_ms": latency.median_ms,
        "latency": asdict(latency),
        "environment": environment(device),
    }


def _checkpoint_in(place: Path) -> Path:
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
            f"--test_model_dir {place} holds no checkpoint: expected pruned.pt, "
            "checkpoints/best.pt, model_best.pth.tar or pruned_checkpoint/ARCH_cov<i>.pt"
        )
    return (found + last)[0]


def evaluate_text(found: dict[str, Any]) -> str:
    """Return the result of `evaluate_command` for people."""
    low, high = found["interval_percent"]
    latency = found["latency"]
    size = "" if found["size_bytes"] is None else f"{found['size_bytes'] / 1e6:.2f} MB"
    rows = {
        "network": f"{found['arch']} ({found['form']})",
        "checkpoint": f"{found['checkpoint']}  {size}".rstrip(),
        "top-1": f"{found['top1_percent']:.2f}%  {found['correct']} of {found['images']} right on "
        f"{found['dataset']} (95% interval {low:.2f} to {high:.2f})",
        "loss": f"{found['loss']:.4f}",
        "MACs": f"{found['macs']:,}  (conv and linear multiply-accumulates of one image)",
        "not counted": ", ".join(found["uncounted"]) or "nothing",
        "parameters": f"{found['parameters']:,}",
        "latency": f"{latency['median_ms']:.2f} ms for {latency['batch_size']} image(s), median "
        f"(10% {latency['p10_ms']:.2f}, 90% {latency['p90_ms']:.2f}), "
        f"{found['environment']['device']}, {latency['threads']} threads",
    }
    return "\n".join(f"{name:12s} {value}" for name, value in rows.items())
