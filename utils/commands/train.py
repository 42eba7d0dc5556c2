"""`main.py train`: a dense baseline, trained from scratch."""

from typing import Any

from utils.metrics.accuracy import as_dicts
from utils.metrics.cost import physical_cost
from utils.options.images import check_classes, open_images
from utils.options.networks import baseline_folder, draw_network, image_size_of, outline_of
from utils.options.train_options import TrainConfig
from utils.paper.markdown import millions
from utils.reports.board import log_results
from utils.runs.atomic_write import write_json
from utils.runs.environment import environment
from utils.runs.job_folder import open_job
from utils.runs.log import RunLog
from utils.runs.options import as_dict
from utils.training.loop import fit

_PASSING = ("json", "job_dir", "device", "gpu", "workers")  # they change no number


def train_command(config: TrainConfig) -> dict[str, Any]:
    """Train a network, into `result/<arch>/baseline/`, and return its summary.

    Called again with the same options it goes on where it was stopped.

    Raises:
        ValueError: bad input, or a folder that holds a run with other options.
    """
    known = outline_of(config)
    images = open_images(config, known, val_fraction=config.held_out, any_classes=True)
    how = {"arguments": config.arch_args, "image_size": image_size_of(config)}
    network = draw_network(config.arch, config.seed, images.num_classes, **how)
    check_classes(network, images.test.classes, images.name)
    model = network.model.to(images.device)
    folder = config.job_dir or baseline_folder(config.arch, config.arch_args).path
    options = {"command": "train", **as_dict(config, without=_PASSING)}
    with open_job(folder, options) as job, RunLog(job) as log:
        result = fit(
            model,
            batches_of=images.training_batches(config.train_batch_size, config.seed, "baseline"),
            steps=images.steps(config.train_batch_size),
            recipe=config.training_recipe(config.seed),
            evaluate=images.accuracies,
            select_on=config.select_on,
            checkpoints=job,
            stage="baseline",
            log=log,
        )
        cost = physical_cost(model, network.image)
        summary = {
            "command": "train",
            "arch": network.spec,
            "job_dir": str(folder),
            "checkpoint": str(job.best),
            "dataset": images.name,
            "train_images": len(images.train),
            "select_on": config.select_on,
            "macs": cost.macs,
            "parameters": cost.parameters,
            "best": as_dicts(result.best),
            "last": as_dicts(result.last),
            "best_epoch": result.best_epoch + 1,
            "epochs_trained": len(result.epochs),
            "seconds": result.seconds,
            "options": options,
            "environment": environment(images.device),
        }
        if not job.summary_json.exists():
            figures = {"top1_percent": summary["best"]["test"]["top1_percent"]}
            figures |= {"macs": cost.macs, "parameters": cost.parameters}
            log_results(log, options, rates="-", figures=figures, text=train_text(summary))
        write_json(job.summary_json, summary)
    return summary


def train_text(summary: dict[str, Any]) -> str:
    """Return the summary of `train_command` for people."""
    lines = [
        f"{summary['arch']} on {summary['dataset']} ({summary['train_images']} train images): "
        f"{millions(summary['macs'])} MACs, {millions(summary['parameters'])} parameters"
    ]
    for name in ("best", "last"):
        test = summary[name]["test"]
        low, high = test["interval_percent"]
        lines.append(
            f"{name}: {test['top1_percent']:.2f}% of the test images "
            f"({test['correct']} of {test['images']}; 95% interval {low:.2f} to {high:.2f})"
        )
    lines.append(
        f"best epoch {summary['best_epoch']} of {summary['epochs_trained']}, "
        f"chosen by {summary['select_on']}"
    )
    return "\n".join([*lines, f"checkpoint: {summary['checkpoint']}"])
