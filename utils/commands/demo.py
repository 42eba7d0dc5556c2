"""`main.py demo`: the whole job on the synthetic dataset `shapes`, with nothing to download."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.commands.prune import prune_command
from utils.commands.ranks import ranks_command
from utils.commands.train import train_command
from utils.options.data_options import DeviceOptions
from utils.options.networks import outline
from utils.options.prune_options import PruneConfig
from utils.options.rank_options import RankConfig
from utils.options.train_options import TrainConfig
from utils.reports.summary import summary_markdown
from utils.runs.job_folder import JobFolder
from utils.runs.notes import note
from utils.runs.options import option
from utils.runs.stop_signals import stops_leaving

ARCH = "resnet_8"


@dataclass(frozen=True)
class DemoConfig(DeviceOptions):
    """Options of `main.py demo`."""

    job_dir: Path = option(Path("result/demo"), "folder of the demo's runs", group="run")
    compress_rate: str = option(
        "",
        "filters to remove of each conv (default: 0.35 of each, which halves the MACs)",
        group="run",
    )
    baseline_epochs: int = option(8, "epochs of the baseline", group="run")
    epochs: int = option(4, "epochs of fine-tuning", group="run")
    num_images: int = option(500, "images to rank on", group="run")


def demo_command(config: DemoConfig) -> dict[str, Any]:
    """Train, rank, prune half the MACs, fine-tune; return the summary of the pruning.

    Raises:
        ValueError: bad input; for any of the three steps, before the first.
    """
    training, ranking, pruning = _steps(config)
    with stops_leaving("the same command goes on from there"):
        note(f"1 of 3: training a {ARCH} on shapes")
        train_command(training)
        note("2 of 3: ranking its feature maps")
        ranks_command(ranking)
        note("3 of 3: pruning and fine-tuning")
        return prune_command(pruning)


def _steps(config: DemoConfig) -> tuple[TrainConfig, RankConfig, PruneConfig]:
    shared = {"seed": config.seed, "device": config.device, "gpu": config.gpu}
    shared |= {"arch": ARCH, "dataset": "shapes"}
    baseline, ranks = JobFolder(config.job_dir / "baseline"), config.job_dir / "rank_conv"
    training = TrainConfig(**shared, epochs=config.baseline_epochs, job_dir=baseline.path)
    ranking = RankConfig(**shared, resume=baseline.best, num_images=config.num_images, output=ranks)
    pruning = PruneConfig(
        **shared,
        resume=baseline.best,
        rank_conv=ranks,
        compress_rate=config.compress_rate or f"[0.35]*{outline(ARCH).layers.num_rates}",
        epochs=config.epochs,
        lr=0.05,
        lr_schedule="cosine",
        job_dir=config.job_dir / "pruned",
    )
    return training, ranking, pruning


def demo_text(summary: dict[str, Any]) -> str:
    """Return the summary of the demo for people."""
    folder = Path(summary["job_dir"]).parent
    return (
        f"{summary_markdown(summary)}\n"
        f"The same as files: {summary['job_dir']}/summary.md and summary.json\n"
        f"Curves and histograms: tensorboard --logdir {folder}"
    )
