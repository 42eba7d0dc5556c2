"""The memory layout of a training on a CPU: channels last, where timed steps are faster so."""

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor, nn

from utils.runs import processes
from utils.runs.atomic_write import write_json
from utils.runs.job_folder import JobFolder
from utils.runs.json_files import read_json
from utils.runs.notes import note
from utils.runs.regular_file import is_there
from utils.runs.schema import number, one_of
from utils.training.schedules import Recipe
from utils.training.steps import TrainingStep, make_optimizer

_WORTH_SECONDS, _WORTH_STEPS = 300, 200  # shorter trainings are over before it matters
_STEPS = 3  # timed in either layout, in turns, after one each
_FASTER = 0.95
_KEPT = {"channels_last": one_of("on", "off"), "on_ms": number(0), "off_ms": number(0)}
Step = Callable[[Tensor, Tensor], object]


def with_layout(
    recipe: Recipe,
    model: nn.Module,
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    steps: int,
    checkpoints: JobFolder,
) -> Recipe:
    """Return the recipe with what `channels_last="auto"` comes to; of a GPU as it is.

    What was chosen is kept in the run's folder, so that a run that is taken up computes as before.
    A training of less than five minutes, of several processes, or compiled is not asked for.

    Args:
        batches: gives the first training batches.
        steps: how many there are in an epoch.
    """
    if recipe.channels_last != "auto" or next(model.parameters()).device.type != "cpu":
        return recipe
    if is_there(checkpoints.layout):
        kept = read_json(checkpoints.layout, _KEPT, "the memory layout of a run")
        return replace(recipe, channels_last=kept["channels_last"])
    plain = replace(recipe, channels_last="off")
    short = steps * recipe.epochs < _WORTH_STEPS
    if short or is_there(checkpoints.last) or recipe.compile or processes.num_processes() > 1:
        return plain
    batch = next(iter(batches()), None)
    if batch is None:
        return plain
    with torch.random.fork_rng(devices=()):
        runs = {choice: _step(model, plain, choice) for choice in ("off", "on")}
        if _ms(runs["off"], batch) * steps * recipe.epochs < 1000 * _WORTH_SECONDS:
            return plain
        _ms(runs["on"], batch)
        turns = [{name: _ms(run, batch) for name, run in runs.items()} for _ in range(_STEPS)]
    times = {name: median(turn[name] for turn in turns) for name in runs}
    choice = "on" if times["on"] < _FASTER * times["off"] else "off"
    write_json(
        checkpoints.layout, {"channels_last": choice, **{f"{k}_ms": times[k] for k in times}}
    )
    note(
        f"--channels_last auto: {choice}; a step takes {times['on']:.0f} ms with channels last, "
        f"{times['off']:.0f} ms without"
    )
    return replace(recipe, channels_last=choice)


def _step(model: nn.Module, recipe: Recipe, choice: str) -> TrainingStep:
    """Return the training step of a copy of the model in a layout."""
    model = copy.deepcopy(model).train()
    recipe = replace(recipe, channels_last=choice, ema=None)
    return TrainingStep(model, make_optimizer(model, recipe), recipe)


def _ms(step: Step, batch: tuple[Tensor, Tensor]) -> float:
    start = time.perf_counter()
    step(*batch)
    return 1000 * (time.perf_counter() - start)
