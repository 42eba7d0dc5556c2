"""Training: one epoch, and a stage of many that goes on, bit for bit, where it was stopped."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from utils.metrics.accuracy import Accuracy
from utils.runs import processes
from utils.runs.bars import bar
from utils.runs.job_folder import JobFolder
from utils.runs.log import RunLog
from utils.runs.notes import note
from utils.runs.stop_signals import HeldStops, Stopped, stops_held
from utils.training.memory_layout import with_layout
from utils.training.random_numbers import seeded
from utils.training.records import accuracies_in, epoch_record
from utils.training.schedules import Recipe, learning_rate
from utils.training.stage import Stage
from utils.training.steps import TrainingStep, make_optimizer
from utils.training.tally import Tally

Batches = Iterable[tuple[Tensor, Tensor]]  # images [N, 3, H, W], labels [N] int64


@dataclass(frozen=True)
class FitResult:
    """What a stage ended with; `best` is of epoch `best_epoch`, the first with so many right.

    `epochs` holds the stage's lines of log.jsonl. `seconds` is how long all stages of the run so
    far took, in all calls; of a killed call, what its last checkpoint knows of.
    """

    last: Mapping[str, Accuracy]
    best: Mapping[str, Accuracy]
    best_epoch: int
    epochs: list[dict[str, Any]]
    seconds: float


def fit(
    model: nn.Module,
    *,
    batches_of: Callable[[int, int], Batches],
    steps: int,
    recipe: Recipe,
    evaluate: Callable[[nn.Module], Mapping[str, Accuracy]],
    select_on: str,
    checkpoints: JobFolder,
    stage: str = "",
    log: RunLog | None = None,
    after_step: Callable[[], None] | None = None,
    teacher: nn.Module | None = None,
    step_offset: int = 0,
) -> FitResult:
    """Train `model` by the recipe, in place, and return the accuracies it ended with.

    Called again after a stop, at whatever moment, it ends on the CPU where an unbroken call ends:
    weights, best.pt, log.jsonl and records, bit for bit. `model` ends with the last weights, the
    best lie in best.pt. A stage that is already complete returns at once. The lines of log.jsonl
    are this function's: those that no checkpoint stands for are cut away.

    A signal that stops the program lets a step end, and is saved at that step; so is one that comes
    amid the evaluation, which is then done again.

    Args:
        batches_of: the training batches of an epoch, from one of them on (both from 0), the same
            at each call.
        steps: how many batches that is, for the progress bar and the warm-up.
        evaluate: the accuracies after an epoch, such as {"val": ..., "test": ...}.
        select_on: which of them decides what is best, or "last".
        checkpoints: the run's folder.
        stage: names this call among the several of one run, in their order.
        after_step: called after each optimizer step.
        teacher: the network that the recipe distills from, if any.
        step_offset: the epochs of earlier stages, where TensorBoard's curves go on.

    Raises:
        ValueError: a loss that is not finite, a `select_on` that `evaluate` does not give, a
            stage that the run has left behind, or a last.pt that does not fit.
        Stopped: by a signal, for which a caller has asked with `stops_raised`.
    """
    recipe = with_layout(recipe, model, lambda: batches_of(0, 0), steps, checkpoints)
    optimizer = make_optimizer(model, recipe)
    step = TrainingStep(model, optimizer, recipe, after_step=after_step, teacher=teacher)
    run = Stage(model, optimizer, step, checkpoints, stage, log, select_on, step_offset)
    run.resume()
    name, done = stage or "training", len(run.records)
    with bar(total=recipe.epochs, initial=done, desc=name, unit="epoch") as epochs:
        while not _is_over(run, recipe):
            record = _next_epoch(run, recipe, batches_of=batches_of, steps=steps, evaluate=evaluate)
            with stops_held():
                run.complete(record)
            if epochs.disable:
                measured = ", ".join(f"{key} {value}" for key, value in _measured(record).items())
                note(f"{name}: epoch {len(run.records)} of {recipe.epochs}, {measured}")
            epochs.set_postfix(_measured(record), refresh=False)
            epochs.update()
    last, best = (accuracies_in(run.records[epoch]) for epoch in (-1, run.best_epoch))
    return FitResult(last, best, run.best_epoch, run.records, run.seconds)


def train_epoch(step: TrainingStep, batches: Batches, tally: Tally | None = None) -> Accuracy:
    """Train on each batch once, in train mode, and return the accuracy met on the way.

    Nothing is read back from the device until the end. Training flags are put back. `tally` holds
    the steps of the epoch that were made before, and takes in these.

    Raises:
        ValueError: there are no images, or a loss is not finite.
    """
    tally = Tally() if tally is None else tally
    with step.modes(), tally.timed():
        for images, labels in batches:
            tally.add(*step(images, labels))
        step.end_epoch()
        return tally.accuracy()


def epoch_seed(seed: int, stage: str, epoch: int) -> int:
    """Return the seed of an epoch's randomness, 0 <= value < 2**63, the same on every machine."""
    digest = hashlib.sha256(f"{seed}, {stage!r}, {epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _is_over(run: Stage, recipe: Recipe) -> bool:
    """Return whether all epochs are done, or `patience` of them since the best."""
    epochs = len(run.records)
    waited = epochs - 1 - run.best_epoch
    impatient = recipe.patience is not None and epochs > 0 and waited >= recipe.patience
    return impatient or epochs == recipe.epochs


def _next_epoch(
    run: Stage,
    recipe: Recipe,
    *,
    batches_of: Callable[[int, int], Batches],
    steps: int,
    evaluate: Callable[[nn.Module], Mapping[str, Accuracy]],
) -> dict[str, Any]:
    """Train the next epoch, or what is left of it, evaluate, and return the epoch's record."""
    epoch = len(run.records)
    with seeded(run.model, epoch_seed(recipe.seed, run.name, epoch)), run.naming_place():
        start = run.begin_epoch()
        batches = _with_bar(batches_of(epoch, start), epoch, start, steps)
        place = {"epoch": epoch, "start": start, "steps": steps}
        batches = _with_learning_rates(batches, run.optimizer, recipe, **place)
        measured = _train_and_evaluate(run, batches, evaluate)
    rate = run.optimizer.param_groups[0]["lr"]
    return {"stage": run.name, "epoch": epoch, "lr": rate, **measured}


def _train_and_evaluate(
    run: Stage, batches: Batches, evaluate: Callable[[nn.Module], Mapping[str, Accuracy]]
) -> dict[str, int | float]:
    """Train on what is left of an epoch, and return its record; a stop is saved, then goes on up.

    A stop amid the evaluation finds all steps made, and only the evaluation to do again.
    """
    try:
        with stops_held() as stops:
            trained = train_epoch(run.step, _until_stopped(batches, stops), run.tally)
            if processes.num_processes() > 1:  # stop together, never amid what they add up
                return epoch_record(trained, evaluate(run.step.evaluated))
        return epoch_record(trained, evaluate(run.step.evaluated))
    except Stopped as stop:
        if not stop.amid:
            run.pause()
            stop.outcome = (
                f"{run.place}, step {len(run.tally)} is saved; the same command continues"
            )
        raise


def _until_stopped(batches: Batches, stops: HeldStops) -> Batches:
    """Yield the batches; after the step that a signal came in, raise Stopped instead."""
    for batch in batches:
        yield batch
        stops.check()


def _with_learning_rates(
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    *,
    epoch: int,
    start: int,
    steps: int,
) -> Batches:
    """Yield the batches from `start` on, and set before each the learning rate of its step."""
    for step, batch in enumerate(batches, start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch, step, steps)
        yield batch


def _with_bar(batches: Batches, epoch: int, start: int, steps: int) -> Batches:
    how = {"desc": f"epoch {epoch + 1}", "unit": "batch", "leave": False}
    return bar(batches, total=steps, initial=start, **how)


def _measured(record: Mapping[str, Any]) -> dict[str, str]:
    percents = {name: f"{acc.top1_percent:.2f}%" for name, acc in accuracies_in(record).items()}
    return {"loss": f"{record['train_loss']:.4f}", **percents}
