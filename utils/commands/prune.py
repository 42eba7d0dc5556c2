"""`main.py prune`: ranks and compress rates -> a smaller network, fine-tuned and measured."""

import copy
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from utils.commands.finetune import Finetuning
from utils.commands.inputs import (
    RESULTS,
    DataOptions,
    DeviceOptions,
    Images,
    NetworkOptions,
    checkpoint_of,
    note,
    open_dense_network,
    open_device,
    open_images,
)
from utils.commands.plan import Planned, expand_rates, make_plan
from utils.commands.prune_zeros import remove_zeros
from utils.commands.summary import summary_markdown
from utils.commands.training_options import TrainingOptions
from utils.metrics.accuracy import Accuracy
from utils.metrics.difference import largest_difference
from utils.metrics.latency import compare_latency
from utils.pruning.criteria import CRITERIA
from utils.pruning.masks import ChannelMasks
from utils.pruning.network_file import Network, write_network
from utils.pruning.surgery import remove_filters
from utils.runs.atomic_write import write_json, write_text
from utils.runs.borrowed_state import evaluating
from utils.runs.checkpoint import sha256_of
from utils.runs.environment import environment
from utils.runs.job_folder import JobFolder, open_job
from utils.runs.log import RunLog
from utils.runs.options import as_dict, option

_PASSING = ("json", "dry_run", "job_dir", "device", "gpu", "remove_zeros")  # change no number


@dataclass(frozen=True)
class PruneConfig(TrainingOptions, NetworkOptions, DataOptions, DeviceOptions):
    """Options of `main.py prune`."""

    compress_rate: str = option(
        "", "filters to remove of each conv, e.g. [0.95]+[0.5]*6+[0.9]*4+[0.8]*2", group="pruning"
    )
    criterion: str = option("rank", "what scores a filter", choices=CRITERIA, group="pruning")
    rank_conv: Path | None = option(
        None,
        "folder of the rank files (default: rank_conv/ARCH)",
        flags=("--rank_conv_prefix",),
        group="pruning",
    )
    mode: str = option(
        "remove",
        "make tensors smaller, or keep them and hold zeros in them",
        choices=("remove", "mask"),
        group="pruning",
    )
    schedule: str = option(
        "oneshot",
        "prune all convs at once, or conv by conv with fine-tuning in between (the paper's way)",
        choices=("oneshot", "layerwise"),
        group="pruning",
    )
    group: bool = option(
        False,
        "prune layers that a sum ties together, at the mean of their rates and scores",
        group="pruning",
    )
    round_to: int = option(
        1, "round the filters that stay up to a multiple of this", metavar="K", group="pruning"
    )
    remove_zeros: bool = option(
        False, "only remove what is zero already in --resume CKPT", group="pruning"
    )
    dry_run: bool = option(False, "print the plan and its costs, write nothing", group="run")
    job_dir: Path | None = option(
        None,
        "folder of the run (default: result/ARCH/prune_..., named by the options)",
        group="run",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.remove_zeros:
            if self.compress_rate:
                raise ValueError(
                    "--remove_zeros removes what is zero already: expected no --compress_rate, "
                    f"got {self.compress_rate!r}"
                )
            return
        if not self.compress_rate:
            raise ValueError("--compress_rate is missing: expected rates such as [0.1]+[0.6]*54")
        expand_rates(self.compress_rate, self.arch)
        if self.round_to < 1:
            raise ValueError(f"--round_to is {self.round_to}: expected 1 or more")
        if self.epochs < 0 or (self.epochs == 0 and self.schedule == "layerwise"):
            raise ValueError(f"--epochs is {self.epochs}: expected 1 or more (0: no fine-tuning)")
        if self.epochs:
            self.recipe(self.seed)


def prune_command(config: PruneConfig) -> dict[str, Any]:
    """Prune a network, fine-tune it, and return the summary that is also written to the folder.

    Called again with the same options it goes on where it was stopped.

    Raises:
        ValueError: bad input, or a folder that holds a run with other options.
    """
    checkpoint = checkpoint_of(config)
    if config.remove_zeros:
        run = {"seed": config.seed, "job_dir": config.job_dir, "dry_run": config.dry_run}
        return remove_zeros(config.arch, checkpoint, **run)
    dense = open_dense_network(config.arch, checkpoint, config.seed)
    identity = _identity(config, checkpoint)
    planned = make_plan(
        dense,
        compress_rate=config.compress_rate,
        criterion=config.criterion,
        rank_folder=config.rank_conv or Path("rank_conv") / config.arch,
        checkpoint_sha256=identity["checkpoint_sha256"],
        seed=config.seed,
        group=config.group,
        round_to=config.round_to,
    )
    summary = {
        "command": "prune",
        "arch": config.arch,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "criterion": config.criterion,
        "mode": config.mode,
        "schedule": config.schedule,
        "compress_rate": planned.compress_rate(),
        **planned.costs(config.mode),
    }
    if config.dry_run:
        return summary
    device = open_device(config.device, config.gpu)
    images = open_images(
        config,
        config.arch,
        device,
        seed=config.seed,
        num_classes=planned.dense.num_classes,
        val_fraction=config.held_out,
    )
    folder = config.job_dir or _default_folder(config, identity)
    with open_job(folder, identity) as job, RunLog(job) as log:
        _keep_plan(job, planned)
        _log_plan(log, planned, summary["layers"])
        summary |= {"job_dir": str(folder), "dataset": images.name, "options": identity}
        summary |= _run(config, planned, images, job, log)
        summary["dense_file_bytes"] = None if checkpoint is None else checkpoint.stat().st_size
        pruned = summary["paper_rule"]["pruned"]
        summary["paper"] = planned.beside_paper(pruned, _final(summary))
        summary["environment"] = environment(device)
        _finish(summary, job, log)
    return summary


def _run(
    config: PruneConfig, planned: Planned, images: Images, job: JobFolder, log: RunLog
) -> dict[str, Any]:
    """Measure, check the law, fine-tune, write pruned.pt, and return what was measured."""
    dense = planned.dense.model.to(images.device)
    note("measuring the dense network")
    accuracies = {"dense": images.accuracies(dense)}
    masked = copy.deepcopy(dense)
    masks = ChannelMasks(masked, planned.graph, planned.plan.masks())
    masks.apply()
    slim = planned.slim.to(images.device)
    difference = _largest_difference(masked, slim, images)
    note(f"removed = masked on real images: largest difference {difference['largest']:.2e}")
    accuracies["pruned"] = images.accuracies(masked)
    started = time.perf_counter()
    model, result = slim if config.mode == "remove" else masked, None
    if config.epochs:
        tuning = Finetuning(images, config.recipe(config.seed), config.select_on, job, log)
        if config.schedule == "oneshot":
            result = tuning.oneshot(model, None if config.mode == "remove" else masks)
        else:
            model = copy.deepcopy(dense)
            result = tuning.layerwise(model, planned.graph, planned.plan)
            if config.mode == "remove":
                model = remove_filters(model, planned.graph, planned.plan.masks())
        accuracies |= {"finetuned_best": result.best, "finetuned_last": result.last}
    seconds = time.perf_counter() - started
    write_network(job.pruned, _network(config, planned, model))
    note("timing the dense and the pruned network")
    return {
        "removed_equals_masked": difference,
        "accuracy": {name: _plain(found) for name, found in accuracies.items()},
        "best_epoch": None if result is None else result.best_epoch + 1,
        "train_images": len(images.train),
        "seconds_of_finetuning": seconds,
        "latency": _latencies(dense, model, images),
        "pruned_file_bytes": job.pruned.stat().st_size,
        "pruned_file": str(job.pruned),
    }


def _final(summary: Mapping[str, Any]) -> Accuracy:
    states = summary["accuracy"]
    test = states.get("finetuned_best", states["pruned"])["test"]
    return Accuracy(test["correct"], test["images"], test["loss"])


def _identity(config: PruneConfig, checkpoint: Path | None) -> dict[str, Any]:
    """Return what makes a run the same run: its options and the dense checkpoint's bytes."""
    options = {name: value for name, value in as_dict(config).items() if name not in _PASSING}
    sha256 = None if checkpoint is None else sha256_of(checkpoint)
    return {"command": "prune", **options, "checkpoint_sha256": sha256}


def _default_folder(config: PruneConfig, identity: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    name = f"prune_{config.criterion}_{config.mode}_{config.schedule}_{digest}"
    return RESULTS / config.arch / name


def _keep_plan(job: JobFolder, planned: Planned) -> None:
    """Write plan.json, or check that the run that is taken up has the same plan.

    Raises:
        ValueError: the rank files changed since the run began.
    """
    plan = planned.plan.as_list()
    if job.plan.exists() and json.loads(job.plan.read_text()) != plan:
        raise ValueError(
            f"{job.plan} holds another plan: the rank files changed since the run began; "
            f"give another --job_dir, or delete {job.path} to start again"
        )
    write_json(job.plan, plan)


def _log_plan(log: RunLog, planned: Planned, layers: list[dict[str, Any]]) -> None:
    """Draw the plan: curves over the convs, and the scores' histogram of each."""
    for number, layer in enumerate(layers, start=1):
        log.scalars(
            {
                "plan/filters_dense": layer["filters"],
                "plan/filters_kept": len(layer["kept"]),
                "plan/macs_dense": layer["macs"]["dense"],
                "plan/macs_pruned": layer["macs"]["pruned"],
            },
            step=number,
        )
        log.histogram(f"scores/{number:03d} {layer['conv']}", planned.scores[layer["conv"]], step=0)


def _largest_difference(masked: nn.Module, slim: nn.Module, images: Images) -> dict[str, float]:
    """Return the largest |removed - masked| logit on a batch of test images, and their scale.

    Raises:
        RuntimeError: they differ by more than float32 rounding; that would be our bug.
    """
    batch, _ = next(images.evaluation_batches(images.test))
    with evaluating(masked), evaluating(slim):
        largest, scale = largest_difference(masked, slim, batch)
    if not largest <= 1e-3 * max(scale, 1.0):
        raise RuntimeError(f"removed and masked logits differ by {largest} at a scale of {scale}")
    return {"largest": largest, "logit_scale": scale, "images": len(batch)}


def _latencies(dense: nn.Module, pruned: nn.Module, images: Images) -> dict[str, Any]:
    """Return the latency of both networks on one image and on a batch, timed in turns."""
    batch, _ = next(images.evaluation_batches(images.test))
    networks = {"dense": dense, "pruned": pruned}
    return {
        name: {state: asdict(found) for state, found in timed.items()}
        for name, timed in (
            ("one_image", compare_latency(networks, batch[:1], repeats=20)),
            ("batch", compare_latency(networks, batch, repeats=5, warmup=1)),
        )
    }


def _network(config: PruneConfig, planned: Planned, model: nn.Module) -> Network:
    return Network(
        model,
        config.arch,
        planned.dense.num_classes,
        config.mode,
        planned.plan.masks(),
        {
            "criterion": config.criterion,
            "compress_rate": planned.compress_rate(),
            "schedule": config.schedule,
            "epochs": config.epochs,
            "seed": config.seed,
            "torch": str(torch.__version__),  # a class of its own, which no safe loader reads
        },
    )


def _plain(accuracies: Mapping[str, Accuracy]) -> dict[str, Any]:
    return {name: accuracy.as_dict() for name, accuracy in accuracies.items()}


def _finish(summary: dict[str, Any], job: JobFolder, log: RunLog) -> None:
    physical = summary["physical"]
    log.hparams(
        summary["options"],
        {
            "final/top1_percent": _final(summary).top1_percent,
            "final/macs": physical["pruned"]["macs"],
            "final/parameters": physical["pruned"]["parameters"],
        },
    )
    text = summary_markdown(summary)
    log.text("summary", text)
    write_text(job.summary_markdown, text)
    write_json(job.summary_json, summary)
