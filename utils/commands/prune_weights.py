"""`main.py prune --granularity weight`: a network, most of whose weights are zero, fine-tuned."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.network import Network
from utils.metrics.accuracy import ACCURACY, as_dicts
from utils.metrics.cost import counts, physical_cost
from utils.options.images import Images, open_images
from utils.options.networks import open_prunable, results_of
from utils.options.prune_options import PruneConfig
from utils.planning.finetune import finetuning_of
from utils.planning.plan import check_finite
from utils.pruning.layer_sparsity import parse_sparsity
from utils.pruning.magnitude import (
    WeightMasks,
    cubic_sparsity,
    global_masks,
    magnitude_mask,
    pattern_mask,
    prunable_weights,
)
from utils.removal.network_file import write_network
from utils.reports.board import DENSE, FINETUNED, PRUNED, final_figures, log_results, log_weights
from utils.reports.weight_figures import write_weight_figure
from utils.reports.weight_summary import weight_sizes, weights_markdown
from utils.runs import processes
from utils.runs.atomic_write import write_json, write_tensors, write_text
from utils.runs.checkpoint import fill_model, load_file, state_dict_of, weights_of
from utils.runs.deflate import deflate, deflated_bytes
from utils.runs.environment import environment
from utils.runs.job_folder import JobFolder, named_by, open_job
from utils.runs.log import RunLog
from utils.runs.notes import note
from utils.runs.regular_file import is_there
from utils.runs.schema import TENSOR, Kind, MapOf, Optional, check, number, whole
from utils.training.recalibration import recalibrate

_ROW = {"weights": whole(0), "zeros": whole(0), "sparsity": number(0)}
_ROW |= {"pruned": MapOf(ACCURACY)}
_ROW |= {name: Optional(MapOf(ACCURACY)) for name in ("recalibrated", "finetuned")}
_STEPS = (  # the schema of steps.pt
    {"step": whole(1), "masks": MapOf(TENSOR), "done": [_ROW]},
    Kind("a row of each step", lambda state: len(state["done"]) == state["step"]),
)


def prune_weights_command(config: PruneConfig) -> dict[str, Any]:
    """Zero the weights of least magnitude, fine-tune the others, and return the summary.

    The tensors keep their size, so the MACs do not change.

    Raises:
        ValueError: bad input, or a folder that holds a run with other options.
    """
    dense = open_prunable(config)
    check_finite(dense)
    masks = masks_of_step(config, dense.model, 1, steps=1)
    summary = _described(config, dense, masks)
    if config.dry_run:
        return summary
    images = open_images(config, dense, val_fraction=config.held_out)
    identity = config.identity(dense.checkpoint_sha256)
    name = f"prune_weight_{config.threshold}_{config.schedule}"
    folder = config.job_dir or results_of(dense) / named_by(name, identity)
    with open_job(folder, identity) as job, RunLog(job) as log:
        summary |= {"job_dir": str(folder), "dataset": images.name, "options": identity}
        pruned = copy.deepcopy(dense.model).to(images.device)
        summary |= _run(config, dense.model.to(images.device), pruned, images, job, log)
        summary |= _written(config, dense, pruned, job)
        summary["environment"] = environment(images.device)
        _finish(summary, dense.model, pruned, job, log)
    return summary


def masks_of_step(
    config: PruneConfig, model: nn.Module, step: int, *, steps: int
) -> dict[str, Tensor]:
    """Return {layer: mask}, on the CPU, of what `step` (from 1) of `steps` leaves of the weights.

    What is zero already goes first, so each step keeps the zeros of those before.

    Raises:
        ValueError: the options name a layer that is not there.
    """
    weights = {layer: weight.cpu() for layer, weight in prunable_weights(model).items()}
    if config.pattern == "2:4":
        masks = {layer: pattern_mask(weight) for layer, weight in weights.items()}
        return {layer: mask for layer, mask in masks.items() if mask is not None}
    sparsity = parse_sparsity(config.sparsity)
    if config.threshold == "global":
        return global_masks(weights, cubic_sparsity(sparsity.others, step, steps))
    return {
        layer: magnitude_mask(weights[layer], cubic_sparsity(final, step, steps))
        for layer, final in sparsity.of_layers(weights).items()
    }


def _described(config: PruneConfig, dense: Network, masks: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what is known before anything is trained: the summary of a dry run."""
    cost = counts(physical_cost(dense.model, dense.image))
    layers = []
    for layer, weight in prunable_weights(dense.model).items():
        zeros = int((~masks[layer]).sum()) if layer in masks else 0
        layers.append({"layer": layer, "weights": weight.numel(), "zeros": zeros})
    return {
        "command": "prune",
        **dense.named,
        "granularity": "weight",
        "sparsity": config.sparsity,
        "threshold": config.threshold,
        "pattern": config.pattern,
        "schedule": config.schedule,
        "physical": {"dense": cost, "pruned": cost},
        "layers": layers,
        "left_dense": [row["layer"] for row in layers if row["layer"] not in masks],
    }


def _run(
    config: PruneConfig,
    dense: nn.Module,
    model: nn.Module,
    images: Images,
    job: JobFolder,
    log: RunLog,
) -> dict[str, Any]:
    """Prune `model` in place, in one step or several, and return what was measured.

    `steps.pt` holds the masks of the step under way and what came of the steps before, so that a
    run that was stopped goes on with the same masks.
    """
    note("measuring the dense network")
    accuracy = {"dense": as_dicts(images.accuracies(dense))}
    steps = config.steps if config.schedule == "iterative" else 1
    state = _steps_of(job, model)
    if is_there(job.best):
        fill_model(model, state_dict_of(load_file(job.best), job.best), job.best)
    tuning = finetuning_of(config, dense, images, job, log) if config.epochs else None
    result, done = None, state["done"]
    for step in range(max(state["step"], 1), steps + 1):
        ahead = step > state["step"]
        masks = masks_of_step(config, model, step, steps=steps) if ahead else state["masks"]
        applied = WeightMasks(model, masks)
        applied.apply()
        if ahead:
            done.append(_step_row(masks) | {"pruned": as_dicts(images.accuracies(model))})
        if config.recalibrates:
            recalibrate(model, images.recalibration_batches(config.recalibrate, config.seed))
        if ahead:
            if config.recalibrates:
                done[-1]["recalibrated"] = as_dicts(images.accuracies(model))
            write_tensors(job.steps, {"step": step, "masks": masks, "done": done})
        processes.check_same("the masks", done[-1])
        if tuning is not None:
            result = tuning.step(model, applied, step, steps)
            done[-1]["finetuned"] = as_dicts(result.best)
    states = ("pruned", "recalibrated")
    accuracy |= {state: done[-1][state] for state in states if state in done[-1]}
    if result is not None:
        accuracy |= {"finetuned_best": done[-1]["finetuned"]}
        accuracy |= {"finetuned_last": as_dicts(result.last)}
    return {
        "accuracy": accuracy,
        "steps": done,
        "best_epoch": None if result is None else result.best_epoch + 1,
        "train_images": len(images.train),
        "seconds_of_finetuning": 0.0 if result is None else result.seconds,
    }


def _steps_of(job: JobFolder, model: nn.Module) -> dict[str, Any]:
    """Return what steps.pt holds, step 0 where there is none."""
    path, weights = job.steps, prunable_weights(model)
    if not is_there(path):
        return {"step": 0, "masks": {}, "done": []}
    state = load_file(path)
    check(state, _STEPS, f"{path}", "the steps of a run")
    for layer, mask in state["masks"].items():
        if layer not in weights or (mask.shape, mask.dtype) != (weights[layer].shape, torch.bool):
            raise ValueError(f"{path} holds a mask of {layer!r}: expected masks of this network")
    return state


def _step_row(masks: Mapping[str, Tensor]) -> dict[str, float]:
    weights = sum(mask.numel() for mask in masks.values())
    zeros = weights - sum(int(mask.sum()) for mask in masks.values())
    return {"weights": weights, "zeros": zeros, "sparsity": zeros / max(weights, 1)}


def _written(
    config: PruneConfig, dense: Network, model: nn.Module, job: JobFolder
) -> dict[str, Any]:
    """Write pruned.pt, deflated, and return the zeros and the sizes of what is in it."""
    for weight in prunable_weights(model).values():
        weight.add_(0.0)  # a mask makes -0.0 of what was negative; 0.0 alone deflates to nothing
    provenance = {
        "granularity": "weight",
        "sparsity": config.sparsity,
        "threshold": config.threshold,
        "pattern": config.pattern,
        **config.provenance(dense.checkpoint_sha256),
    }
    pruned = replace(dense, model=model, form="mask", provenance=provenance)
    write_network(job.pruned, pruned)
    sizes = weight_sizes(model, config.bits)
    files = {"dense": job.pruned.stat().st_size}
    deflate(job.pruned)
    files |= {"dense_deflated": deflated_bytes(weights_of(dense.model))}
    files |= {"pruned_deflated": job.pruned.stat().st_size}
    return {
        "layers": [
            {
                "layer": layer,
                "weights": weight.numel(),
                "zeros": weight.numel() - int(weight.count_nonzero()),
            }
            for layer, weight in prunable_weights(model).items()
        ],
        "sizes": sizes,
        "file_bytes": files,
        "pruned_file_bytes": job.pruned.stat().st_size,
        "pruned_file": str(job.pruned),
    }


def _finish(
    summary: dict[str, Any], dense: nn.Module, pruned: nn.Module, job: JobFolder, log: RunLog
) -> None:
    """Draw the distributions of the weights, before and after, and write the summary."""
    text = weights_markdown(summary)
    if not job.summary_json.exists():
        for number, row in enumerate(summary["layers"], start=1):
            log.scalars({"plan/sparsity": row["zeros"] / row["weights"]}, step=number)
        log_weights(log, dense, DENSE)
        log_weights(log, pruned, FINETUNED if summary["options"]["epochs"] else PRUNED)
        rates, figures = summary["sparsity"] or summary["pattern"], final_figures(summary)
        log_results(log, summary["options"], rates=rates, figures=figures, text=text)
    write_weight_figure(
        job.path / "weights.png", summary["arch"], prunable_weights(dense), prunable_weights(pruned)
    )
    write_text(job.summary_markdown, text)
    write_json(job.summary_json, summary)
