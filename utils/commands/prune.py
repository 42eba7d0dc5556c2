"""`main.py prune`: ranks and compress rates -> a smaller network, fine-tuned and measured."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.commands.scan import run_scan
from utils.graph.network import Network
from utils.metrics.accuracy import Accuracy, as_dicts
from utils.metrics.difference import check_removed
from utils.metrics.latency import latencies
from utils.options.budget_options import AUTO
from utils.options.images import Images
from utils.options.networks import open_prunable, results_of
from utils.options.prune_options import PruneConfig
from utils.options.score_options import how_scored
from utils.paper.rates import read_rates
from utils.planning.aligning import aligned
from utils.planning.branch_changes import images_of_run
from utils.planning.budget import find_budget
from utils.planning.done_convs import with_done_convs
from utils.planning.finetune import finetuning_of
from utils.planning.iterative import check_steps_fit
from utils.planning.plan import Planned, plan_rates, score_layers
from utils.planning.reach import block_of, reachable
from utils.planning.schedule import finetune_by_schedule
from utils.planning.scratch import from_scratch
from utils.planning.table_at_hand import not_faster
from utils.pruning.plan import PLAN
from utils.removal.masks import ChannelMasks
from utils.removal.network_file import write_network
from utils.reports.board import FINETUNED, PRUNED, final_figures, log_plan, log_results, log_weights
from utils.reports.layer_figures import write_layer_figure
from utils.reports.summary import summary_markdown
from utils.runs import processes
from utils.runs.atomic_write import check_writable, write_json, write_text
from utils.runs.environment import environment
from utils.runs.job_folder import JobFolder, named_by, open_job
from utils.runs.json_files import read_json
from utils.runs.log import RunLog
from utils.runs.notes import note
from utils.runs.regular_file import is_there
from utils.runs.schema import OBJECT
from utils.training.recalibration import recalibrate


def prune_command(config: PruneConfig) -> dict[str, Any]:
    """Prune a network's filters, fine-tune it, and return the summary, which its folder gets, too.

    Called again with the same options it goes on where it was stopped.

    Raises:
        ValueError: bad input, or a folder that holds a run with other options.
    """
    dense = open_prunable(config)
    config = config.with_rates_of(dense)
    if config.round_to == AUTO:
        config = replace(config, round_to=block_of(config, dense))
    identity = config.identity(dense.checkpoint_sha256)
    folder = _folder(config, identity, dense)
    if not config.dry_run and (finished := _finished(JobFolder(folder), identity)):
        return finished
    if not config.dry_run:
        check_writable(folder)
    images = images_of_run(config, dense)
    scores = score_layers(dense, **how_scored(config))
    budget = None
    if config.target:
        how = {"images": images, "make_scan": run_scan}
        budget = find_budget(config, dense, scores, JobFolder(folder), **how)
    planned = aligned(config, _plan(config, dense, scores, budget), JobFolder(folder))
    summary = _planned_summary(config, planned) | {"budget": budget}
    if config.targets:
        summary["targets"] = reachable(config, dense, scores)
    if config.dry_run:
        return summary
    if config.schedule == "iterative":
        check_steps_fit(config, planned.plan, images)
    with open_job(folder, identity) as job, RunLog(job) as log:
        if budget:
            write_json(job.budget, budget)
        if planned.aligned_by:
            write_json(job.align, planned.aligned_by)
        if not job.plan.exists():
            log_plan(log, planned, summary["layers"], images, config.criterion)
        if not config.rerank:  # else it is only known in the end
            _keep_plan(job, planned)
        summary |= {"job_dir": str(folder), "dataset": images.name, "options": identity}
        summary |= _run(config, planned, images, job, log)
        checkpoint, pruned = dense.checkpoint, summary["paper_rule"]["pruned"]
        summary["dense_file_bytes"] = None if checkpoint is None else checkpoint.stat().st_size
        summary["paper"] = planned.beside_paper(pruned, _final(summary))
        summary["environment"] = environment(images.device)
        _finish(summary, job, log)
    return summary


def _plan(
    config: PruneConfig,
    dense: Network,
    scores: Mapping[str, Tensor],
    budget: Mapping[str, Any] | None,
) -> Planned:
    """Plan what goes, the convs included that are pruned already; the same in every process."""
    text = budget["compress_rate"] if budget else config.compress_rate
    rates = read_rates(text, dense, config.layout)
    dropped = set().union(*budget["dropped"]) if budget else ()
    how = {"group": config.group, "round_to": config.round_to, "dropped": dropped}
    planned = plan_rates(scores, rates, **how)
    if config.start_cov:
        planned = with_done_convs(planned, config.start_cov, config.resume_mask)
    kept = {layer.conv: layer.kept for layer in planned.plan.layers}
    processes.check_same("the pruning plan", kept)
    return planned


def _planned_summary(config: PruneConfig, planned: Planned) -> dict[str, Any]:
    """Return what is known of the run before any image is."""
    dense = planned.dense
    return {
        "command": "prune",
        **dense.named,
        "criterion": config.criterion,
        "mode": config.mode,
        "schedule": config.schedule,
        "init": config.init,
        "compress_rate": planned.compress_rate(),
        "align": planned.aligned_by,
        "no_faster": not_faster(config, planned),
        **planned.costs(config.mode),
    }


def _run(
    config: PruneConfig,
    planned: Planned,
    images: Images,
    job: JobFolder,
    log: RunLog,
) -> dict[str, Any]:
    """Measure, check the law, fine-tune, write pruned.pt, and return what was measured."""
    opened = planned.dense
    dense = opened.model.to(images.device)
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
    if config.recalibrates and config.schedule != "iterative" and planned.plan.masks():
        recalibrate(model, images.recalibration_batches(config.recalibrate, config.seed))
        accuracy["recalibrated"] = as_dicts(images.accuracies(model))
    if config.epochs:
        tuning = finetuning_of(config, dense, images, job, log)
        tuned = finetune_by_schedule(config, planned, tuning, model=model, masks=masks)
        model, result, planned = tuned.model, tuned.result, tuned.planned
        if tuned.steps:
            write_json(job.plan, planned.plan.as_list())
            states = ("pruned", "recalibrated")
            accuracy |= {x: tuned.steps[-1][x] for x in states if x in tuned.steps[-1]}
            stepped = {"steps": tuned.steps, **planned.costs(config.mode)}
        accuracy["finetuned_best"] = as_dicts(result.best)
        accuracy["finetuned_last"] = as_dicts(result.last)
        log_weights(log, model, FINETUNED)
    made_by = {
        "criterion": config.criterion,
        "compress_rate": planned.compress_rate(),
        "init": config.init,
        **config.provenance(opened.checkpoint_sha256),
    }
    pruned = {"model": model, "form": config.mode, "masks": planned.plan.masks()}
    write_network(job.pruned, replace(opened, **pruned, provenance=made_by))
    note("timing the dense and the pruned network")
    return {
        "removed_equals_masked": difference,
        "accuracy": accuracy,
        "best_epoch": None if result is None else result.best_epoch + 1,
        "epochs_trained": log.lines,  # of all stages
        "train_images": len(images.train),
        "seconds_of_finetuning": 0.0 if result is None else result.seconds,
        "latency": latencies({"dense": dense, "pruned": model}, images.first_batch(images.test)),
        "pruned_file_bytes": job.pruned.stat().st_size,
        "pruned_file": str(job.pruned),
        **stepped,
    }


def _finished(job: JobFolder, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the summary of a run that is finished already, None of any other.

    Raises:
        ValueError: the folder holds a run with other options.
    """
    if not (job.summary_json.exists() and job.pruned.exists()):
        return None
    with open_job(job.path, identity):
        note(f"already finished: this is its summary; to run again, delete {job.path}")
        return read_json(job.summary_json, OBJECT, "the summary of a run")


def _final(summary: Mapping[str, Any]) -> Accuracy | None:
    """Return the accuracy after fine-tuning, None where there was none."""
    if "finetuned_best" not in summary["accuracy"]:
        return None
    test = summary["accuracy"]["finetuned_best"]["test"]
    return Accuracy(test["correct"], test["images"], test["loss"])


def _folder(config: PruneConfig, identity: Mapping[str, Any], dense: Network) -> Path:
    """Return the run's folder: the one given, else one that its identity names."""
    control = "_scratch" * (config.init == "scratch")
    name = f"prune_{config.criterion}_{config.mode}_{config.schedule}{control}"
    return config.job_dir or results_of(dense) / named_by(name, identity)


def _keep_plan(job: JobFolder, planned: Planned) -> None:
    """Write plan.json, or check that the run that is taken up has the same plan.

    Raises:
        ValueError: the rank files changed since the run began.
    """
    plan = planned.plan.as_list()
    if is_there(job.plan) and read_json(job.plan, PLAN, "a pruning plan") != plan:
        raise ValueError(
            f"{job.plan} holds another plan: the rank files changed since the run began; "
            f"give another --job_dir, or delete {job.path} to start again"
        )
    write_json(job.plan, plan)


def _finish(summary: dict[str, Any], job: JobFolder, log: RunLog) -> None:
    rates, text = summary["compress_rate"], summary_markdown(summary)
    if not job.summary_json.exists():
        figures = final_figures(summary)
        log_results(log, summary["options"], rates=rates, figures=figures, text=text)
    write_text(job.summary_markdown, text)
    write_layer_figure(job.path / "layers.png", summary)
    write_json(job.summary_json, summary)
