"""`main.py demo`: the whole job on the synthetic dataset `shapes`, with nothing to download."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.rank_layers import rank_layers
from utils.commands.inputs import DeviceOptions, note
from utils.commands.prune import PruneConfig, prune_command
from utils.commands.ranks import RankConfig, ranks_command
from utils.commands.summary import summary_markdown
from utils.commands.train import TrainConfig, train_command
from utils.runs.options import option

ARCH = "resnet_8"


@dataclass(frozen=True)
class DemoConfig(DeviceOptions):
    """Options of `main.py demo`."""

    job_dir: Path = option(Path("result/demo"), "folder of the demo's runs", group="run")
    compress_rate: str = option(
        "",
        "filters to remove of each conv (default: 0.3 of each, which halves the MACs)",
        group="run",
    )
    baseline_epochs: int = option(8, "epochs of the baseline", group="run")
    epochs: int = option(4, "epochs of fine-tuning", group="run")


def demo_command(config: DemoConfig) -> dict[str, Any]:
    """Train, rank, prune half the MACs, fine-tune; return the summary of the pruning."""
    shared = {"seed": config.seed, "device": config.device, "gpu": config.gpu}
    data = {"arch": ARCH, "dataset": "shapes"}
    note(f"1 of 3: training a {ARCH} on shapes")
    baseline = train_command(
        TrainConfig(
            **shared, **data, epochs=config.baseline_epochs, job_dir=config.job_dir / "baseline"
        )
    )
    checkpoint = Path(baseline["checkpoint"])
    ranks = config.job_dir / "rank_conv"
    note("2 of 3: ranking its feature maps")
    ranks_command(RankConfig(**shared, **data, resume=checkpoint, output=ranks))
    note("3 of 3: pruning and fine-tuning")
    return prune_command(
        PruneConfig(
            **shared,
            **data,
            resume=checkpoint,
            rank_conv=ranks,
            compress_rate=config.compress_rate or f"[0.3]*{len(rank_layers(ARCH).layers)}",
            epochs=config.epochs,
            lr=0.05,
            lr_schedule="cosine",
            job_dir=config.job_dir / "pruned",
        )
    )


def demo_text(summary: dict[str, Any]) -> str:
    """Return the summary of the demo for people."""
    folder = Path(summary["job_dir"]).parent
    return (
        f"{summary_markdown(summary)}\n"
        f"The same as files: {summary['job_dir']}/summary.md and summary.json\n"
        f"Curves and histograms: tensorboard --logdir {folder}"
    )
