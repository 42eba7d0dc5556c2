"""`main.py demo`: the whole job on the synthetic dataset `shapes`, with nothing to download."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from utils.commands.prune import prune_command
from utils.commands.ranks import ranks_command
from utils.commands.train import train_command
from utils.options.demo_options import DemoConfig
from utils.options.images import open_images
from utils.options.networks import open_prunable, outline
from utils.options.prune_options import PruneConfig
from utils.options.rank_options import RankConfig
from utils.options.score_options import how_scored
from utils.options.train_options import TrainConfig
from utils.paper.markdown import counted, megabytes, millions, table
from utils.planning.plan import score_layers
from utils.reports.board import map_grids
from utils.runs.atomic_write import atomic_open
from utils.runs.job_folder import JobFolder
from utils.runs.notes import note
from utils.runs.stop_signals import stops_leaving

ARCH = "resnet_8"


def demo_command(config: DemoConfig) -> dict[str, Any]:
    """Train, rank, prune half the MACs, fine-tune; the same with random filters.

    Returns the summary of the pruning by rank, under `random` the other one, and under
    `feature_maps` the picture of a layer's maps.

    Raises:
        ValueError: bad input; for any of the steps, before the first.
    """
    training, ranking, pruning = _steps(config)
    random = replace(pruning, criterion="random", rank_conv=None, job_dir=config.job_dir / "random")
    with stops_leaving("the same command continues from there"):
        note(f"1 of 4: training a {ARCH} on shapes, ten classes of synthetic images")
        train_command(training)
        note("2 of 4: ranking its feature maps")
        ranks_command(ranking)
        note("3 of 4: removing the filters of lowest rank, and fine-tuning")
        by_rank = prune_command(pruning)
        note("4 of 4: the same with random filters, for comparison")
        at_random = prune_command(random)
    picture = config.job_dir / "feature_maps.png"
    _draw_maps(picture, pruning, by_rank["layers"])
    return by_rank | {"random": at_random, "feature_maps": str(picture)}


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


def _draw_maps(path: Path, config: PruneConfig, layers: Sequence[Mapping[str, Any]]) -> None:
    """Write the feature maps of one test image at the second conv: which stay, which go."""
    dense = open_prunable(config)
    scores = score_layers(dense, **how_scored(config))
    images = open_images(config, dense)
    chosen = layers[1]
    kept = torch.zeros(chosen["filters"], dtype=torch.bool)
    kept[chosen["kept"]] = True
    conv = chosen["conv"]
    grids = map_grids(
        dense.model.to(images.device),
        [layer for layer in dense.layers.layers if layer.conv == conv],
        images.first_batch(images.test.subset([0])),
        scores,
        config.criterion,
        {conv: kept},
    )
    with atomic_open(path) as file:
        Image.fromarray(grids[conv].numpy()).save(file, "png")


def demo_text(summary: Mapping[str, Any]) -> str:
    """Return what the demo found, for people: rank beside random, the files, what to try next."""
    folder = Path(summary["job_dir"]).parent
    pruned, dense = summary["pruned_file"], folder / "baseline" / "checkpoints" / "best.pt"
    return "\n\n".join(
        (
            f"A {ARCH} on shapes: rank against random filters, at the same widths.",
            _comparison(summary),
            f"{counted(summary['options']['epochs'], 'epoch')} of fine-tuning; top-1 of "
            f"{summary['accuracy']['dense']['test']['images']} test images; "
            f"{summary['environment']['device']}.",
            f"Feature maps, kept (blue) and removed (orange): {summary['feature_maps']}\n"
            f"Small network: {pruned}, {megabytes(summary['pruned_file_bytes'])}\n"
            f"All that was measured: {summary['job_dir']}/summary.md",
            "Try next:\n"
            f"    tensorboard --logdir {folder}\n"
            f"    python main.py evaluate --resume {dense} --arch {ARCH} \\\n"
            f"        --dataset shapes --against {pruned}\n"
            f"    python main.py export --resume {pruned} --dataset shapes",
        )
    )


def _comparison(summary: Mapping[str, Any]) -> str:
    """Return the table: the dense network, pruned by rank, pruned at random.

    Each time is set beside the dense network's of the same run, measured in turns.
    """
    dense = _measured(summary["accuracy"]["dense"]["test"], summary["physical"]["dense"])
    rows = [("none", "", *dense, "", "")]
    for removed, found in (("lowest rank", summary), ("random", summary["random"])):
        states = found["accuracy"]
        tuned = states.get("finetuned_best", states["pruned"])["test"]
        pruned = f"{states['pruned']['test']['top1_percent']:.2f}%"
        measured = _measured(tuned, found["physical"]["pruned"])
        rows.append((removed, pruned, *measured, *_times(found["latency"])))
    batch = summary["latency"]["batch"]["dense"]["batch_size"]
    header = ("filters removed", "at once", "fine-tuned", "95% interval", "MACs")
    return table((*header, "time, 1 image", f"time, {batch} images"), rows)


def _measured(accuracy: Mapping[str, Any], cost: Mapping[str, int]) -> tuple[str, ...]:
    low, high = accuracy["interval_percent"]
    top1 = f"{accuracy['top1_percent']:.2f}%"
    return top1, f"{low:.2f} to {high:.2f}", millions(cost["macs"])


def _times(latency: Mapping[str, Any]) -> Iterator[str]:
    """Yield, for one image and for a batch, how many times as fast the small network is."""
    for name in ("one_image", "batch"):
        dense, pruned = (latency[name][state]["median_ms"] for state in ("dense", "pruned"))
        yield f"{dense / pruned:.2f} x as fast"
