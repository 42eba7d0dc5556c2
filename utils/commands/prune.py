"""`main.py prune`: ranks and compress rates -> a smaller network, fine-tuned and measured."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn as nn

from utils.commands.evaluate import evaluate_command
from utils.commands.prune_weights import prune_weights
from utils.commands.prune_zeros import remove_zeros
from utils.commands.scan import scan_command
from utils.metrics.accuracy import Accuracy, as_dicts
from utils.metrics.difference import check_removed
from utils.metrics.latency import latencies
from utils.options.evaluate_options import EvaluateConfig
from utils.options.images import Images, open_images
from utils.options.networks import RESULTS, checkpoint_of, open_dense_network
from utils.options.prune_options import PruneConfig
from utils.options.score_options import how_scored
from utils.planning.budget import find_budget
from utils.planning.done_convs import with_done_convs
from utils.planning.finetune import Finetuned, Finetuning, finetuning_of, stages_of
from utils.planning.iterative import IterativePruning, check_steps_fit
from utils.planning.plan import Planned, make_plan
from utils.planning.scratch import from_scratch
from utils.removal.masks import ChannelMasks
from utils.removal.network_file import Network, write_network
from utils.removal.surgery import remove_filters
from utils.reports.board import (
    FINETUNED,
    PRUNED,
    final_figures,
    log_plan,
    log_results,
    log_weights,
)
from utils.reports.evaluate_table import evaluate_text
from utils.reports.layer_figures import write_layer_figure
from utils.reports.summary import summary_markdown
from utils.reports.weight_summary import weights_markdown
from utils.reports.zeros_summary import zeros_markdown
from utils.runs import processes
from utils.runs.atomic_write import write_json, write_text
from utils.runs.checkpoint import sha256_of
from utils.runs.environment import environment
from utils.runs.job_folder import JobFolder, named_by, open_job
from utils.runs.log import RunLog
from utils.runs.notes import note
from utils.runs.options import as_dict, shared_options

# They change no number of a pruning run.
_PASSING = ("json", "dry_run", "job_dir", "device", "gpu", "remove_zeros", "test_only")
_PASSING += ("test_model_dir", "workers", "force", "ratio")  # its rates are compress_rate's


def prune_command(config: PruneConfig) -> dict[str, Any]:
    """Prune a network, fine-tune it, and return the summary that is also written to the folder.

    Called again with the same options it goes on where it was stopped.

    Raises:
        ValueError: bad input, or a folder that holds a run with other options.
    """
    if config.test_only:
        return _evaluated(config)
    checkpoint = checkpoint_of(config)
    if config.remove_zeros:
        run = {"seed": config.seed, "job_dir": config.job_dir, "dry_run": config.dry_run}
        return remove_zeros(config.arch, checkpoint, **run)
    dense = open_dense_network(config.arch, checkpoint, config.seed)
    identity = run_identity(config, checkpoint)
    if config.by_weight:
        return prune_weights(config, dense, checkpoint, identity)
    folder, sha256 = _folder(config, identity), identity["checkpoint_sha256"]
    budget = (
        find_budget(config, dense, sha256, JobFolder(folder), make_scan=scan_command)
        if config.target
        else None
    )
    rates = budget["compress_rate"] if budget else config.compress_rate
    planned = _plan(config, dense, sha256, rates)
    kept = {layer.conv: layer.kept for layer in planned.plan.layers}
    processes.check_same("the pruning plan", kept)
    summary = _planned_summary(config, checkpoint, planned) | {"budget": budget}
    if config.dry_run:
        return summary
    classes = planned.dense.num_classes
    images = open_images(config, config.arch, num_classes=classes, val_fraction=config.held_out)
    if config.schedule == "iterative":
        check_steps_fit(config, planned.plan, images)
    with open_job(folder, identity) as job, RunLog(job) as log:
        if budget:
            write_json(job.budget, budget)
        if not job.plan.exists():
            log_plan(log, planned, summary["layers"], images, config.criterion)
        if not config.rerank:  # else it is only known in the end
            _keep_plan(job, planned)
        summary |= {"job_dir": str(folder), "dataset": images.name, "options": identity}
        summary |= _run(config, planned, images, job, log, checkpoint_sha256=sha256)
        summary["dense_file_bytes"] = None if checkpoint is None else checkpoint.stat().st_size
        pruned = summary["paper_rule"]["pruned"]
        summary["paper"] = planned.beside_paper(pruned, _final(summary))
        summary["environment"] = environment(images.device)
        _finish(summary, job, log)
    return summary


def _planned_summary(
    config: PruneConfig, checkpoint: Path | None, planned: Planned
) -> dict[str, Any]:
    """Return what is known of the run before any image is."""
    return {
        "command": "prune",
        "arch": config.arch,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "criterion": config.criterion,
        "mode": config.mode,
        "schedule": config.schedule,
        "init": config.init,
        "compress_rate": planned.compress_rate(),
        **planned.costs(config.mode),
    }


def prune_text(summary: Mapping[str, Any]) -> str:
    """Return what `prune_command` returned, for people: Markdown, or what `evaluate` says."""
    if summary["command"] == "evaluate":
        return evaluate_text(summary)
    if summary.get("granularity") == "weight":
        return weights_markdown(summary)
    return zeros_markdown(summary) if "remove_zeros" in summary else summary_markdown(summary)


def _evaluated(config: PruneConfig) -> dict[str, Any]:
    """Return what `evaluate` finds out with the same options."""
    return evaluate_command(EvaluateConfig(**shared_options(EvaluateConfig, config)))


def _plan(
    config: PruneConfig, dense: Network, checkpoint_sha256: str | None, compress_rate: str
) -> Planned:
    """Plan what goes, the convs included that are pruned already."""
    planned = make_plan(
        dense,
        compress_rate=compress_rate,
        layout=config.layout,
        group=config.group,
        round_to=config.round_to,
        **how_scored(config, checkpoint_sha256),
    )
    if config.start_cov == 0:
        return planned
    return with_done_convs(planned, config.start_cov, config.resume_mask)


def _run(
    config: PruneConfig,
    planned: Planned,
    images: Images,
    job: JobFolder,
    log: RunLog,
    *,
    checkpoint_sha256: str | None,
) -> dict[str, Any]:
    """Measure, check the law, fine-tune, write pruned.pt, and return what was measured."""
    dense = planned.dense.model.to(images.device)
    note("measuring the dense network")
    accuracy = {"dense": as_dicts(images.accuracies(dense))}
    if config.init == "scratch":
        planned = from_scratch(planned, config.seed)
    masked = copy.deepcopy(planned.dense.model).to(images.device)
    masks = ChannelMasks(masked, planned.graph, planned.plan.masks())
    masks.apply()
    slim = planned.slim.to(images.device)
    log_weights(log, slim, PRUNED)
    difference = check_removed(masked, slim, images.first_batch(images.test))
    note(f"removed = masked on real images: largest difference {difference['largest']:.2e}")
    accuracy["pruned"] = as_dicts(images.accuracies(masked))
    model, result, stepped = slim if config.mode == "remove" else masked, None, {}
    if config.epochs:
        tuning = finetuning_of(config, dense, images, job, log)
        tuned = _finetuned(config, planned, tuning, model=model, masks=masks)
        model, result, planned = tuned.model, tuned.result, tuned.planned
        if tuned.steps:
            write_json(job.plan, planned.plan.as_list())
            accuracy["pruned"] = tuned.steps[-1]["pruned"]
            stepped = {"steps": tuned.steps, **planned.costs(config.mode)}
            stepped["epochs_trained"] = sum(row["epochs"] for row in tuned.steps)
        accuracy["finetuned_best"] = as_dicts(result.best)
        accuracy["finetuned_last"] = as_dicts(result.last)
        log_weights(log, model, FINETUNED)
    write_network(job.pruned, _network(config, planned, model, checkpoint_sha256))
    note("timing the dense and the pruned network")
    return {
        "removed_equals_masked": difference,
        "accuracy": accuracy,
        "best_epoch": None if result is None else result.best_epoch + 1,
        "epochs_trained": 0 if result is None else len(result.epochs),
        "train_images": len(images.train),
        "seconds_of_finetuning": 0.0 if result is None else result.seconds,
        "latency": latencies({"dense": dense, "pruned": model}, images.first_batch(images.test)),
        "pruned_file_bytes": job.pruned.stat().st_size,
        "pruned_file": str(job.pruned),
        **stepped,
    }


def _finetuned(
    config: PruneConfig,
    planned: Planned,
    tuning: Finetuning,
    *,
    model: nn.Module,
    masks: ChannelMasks,
) -> Finetuned:
    """Fine-tune by the schedule; `model` is what the plan leaves, with `masks` or made smaller."""
    if config.schedule == "iterative":
        return IterativePruning(config, planned, tuning).run()
    if config.schedule == "oneshot":
        result = tuning.oneshot(model, None if config.mode == "remove" else masks)
        return Finetuned(model, result, planned)
    model = copy.deepcopy(planned.dense.model)
    stages = stages_of(config.arch, config.start_cov)
    result = tuning.layerwise(model, planned.graph, planned.plan, stages)
    if config.mode == "remove":
        model = remove_filters(model, planned.graph, planned.plan.masks())
    return Finetuned(model, result, planned)


def _final(summary: Mapping[str, Any]) -> Accuracy:
    states = summary["accuracy"]
    test = states.get("finetuned_best", states["pruned"])["test"]
    return Accuracy(test["correct"], test["images"], test["loss"])


def run_identity(config: PruneConfig, checkpoint: Path | None) -> dict[str, Any]:
    """Return what makes a run the same run: its options and the dense checkpoint's bytes."""
    sha256 = None if checkpoint is None else sha256_of(checkpoint)
    options = as_dict(config, without=_PASSING)
    return {"command": "prune", **options, "checkpoint_sha256": sha256}


def _folder(config: PruneConfig, identity: Mapping[str, Any]) -> Path:
    """Return the run's folder: the one given, else one that its identity names."""
    control = "_scratch" * (config.init == "scratch")
    name = f"prune_{config.criterion}_{config.mode}_{config.schedule}{control}"
    return config.job_dir or RESULTS / config.arch / named_by(name, identity)


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


def _network(
    config: PruneConfig, planned: Planned, model: nn.Module, checkpoint_sha256: str | None
) -> Network:
    return Network(
        model,
        config.arch,
        planned.dense.num_classes,
        config.mode,
        planned.plan.masks(),
        {
            "criterion": config.criterion,
            "compress_rate": planned.compress_rate(),
            "init": config.init,
            **config.provenance(checkpoint_sha256),
        },
    )


def _finish(summary: dict[str, Any], job: JobFolder, log: RunLog) -> None:
    rates, text = summary["compress_rate"], summary_markdown(summary)
    if not job.summary_json.exists():
        figures = final_figures(summary)
        log_results(log, summary["options"], rates=rates, figures=figures, text=text)
    write_text(job.summary_markdown, text)
    write_layer_figure(job.path / "layers.png", summary)
    write_json(job.summary_json, summary)
