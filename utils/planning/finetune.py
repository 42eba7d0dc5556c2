"""Fine-tuning of a pruned network: all at once, in steps, or conv by conv as the paper does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn as nn

from utils.graph.channel_graph import ChannelGraph
from utils.graph.network import Network
from utils.options.images import Images
from utils.options.prune_options import PruneConfig
from utils.planning.plan import Planned
from utils.pruning.plan import PruningPlan
from utils.removal.masks import ChannelMasks, ParameterMasks
from utils.runs.checkpoint import fill_model, load_file, state_dict_of
from utils.runs.job_folder import JobFolder
from utils.runs.log import RunLog
from utils.training.loop import FitResult, fit
from utils.training.recalibration import recalibrate
from utils.training.schedules import Recipe
from utils.training.stage import read_progress

LAST_STAGE = "finetune"  # at the full rates, whatever was before


def stages_of(network: Network, start_cov: int = 0) -> list[tuple[int, slice]]:
    """Return (number of the stage's last rate, which layers of the plan it masks) of each stage.

    Stages that end within the first `start_cov` rates are over.
    """
    known = network.layers
    ends = network.official.stage_ends or range(1, known.num_rates + 1)
    stops = [sum(layer.rate < end for layer in known.layers) for end in ends]
    stages = zip(ends, map(slice, [0, *stops], stops), strict=False)
    return [(end, layers) for end, layers in stages if end > start_cov]


def step_name(step: int, steps: int) -> str:
    """Return the stage's name of a step (from 1) of so many."""
    return LAST_STAGE if step == steps else f"step {step:03d}"


@dataclass(frozen=True)
class Finetuned:
    """What the last stage left: the network, what it came to, and the plan that it has."""

    model: nn.Module
    result: FitResult
    planned: Planned
    steps: tuple[dict[str, Any], ...] = ()  # of the iterative schedule: what each came to


@dataclass(frozen=True)
class Finetuning:
    """What every stage of a fine-tuning shares."""

    images: Images
    recipe: Recipe
    select_on: str
    job: JobFolder
    log: RunLog
    teacher: nn.Module | None = None  # to distill from
    recalibration: int = 0  # train images for the norms' statistics after a cut

    def recalibrate(self, model: nn.Module) -> None:
        """Re-estimate the statistics of a network's norms, if that is asked for."""
        if self.recalibration:
            drawn = self.images.recalibration_batches(self.recalibration, self.recipe.seed)
            recalibrate(model, drawn)

    def oneshot(self, model: nn.Module, masks: ParameterMasks | None) -> FitResult:
        """Fine-tune once; `model` ends with the best weights. Masks, if any, hold at every step."""
        return self.stage(model, masks, LAST_STAGE, epochs_before=0)

    def step(
        self, model: nn.Module, masks: ParameterMasks | None, step: int, steps: int
    ) -> FitResult:
        """Fine-tune after `step` (from 1) of `steps`; a single step is `oneshot`."""
        before = (step - 1) * self.recipe.epochs
        return self.stage(model, masks, step_name(step, steps), epochs_before=before)

    def layerwise(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        plan: PruningPlan,
        stages: Sequence[tuple[int, slice]],
    ) -> FitResult:
        """Mask the convs of one stage more, fine-tune, keep the best, and so on to the last.

        Stages whose convs lose no filter are passed over. Returns the outcome of the last stage.
        """
        progress = read_progress(self.job)
        finished = progress.finished if progress else ()
        result, done = None, 0
        for number, layers in stages:
            stage = f"conv {number:03d}"
            if not any(layer.removed for layer in plan.layers[layers]):
                continue
            if stage not in finished:
                masks = ChannelMasks(model, graph, plan.masks(first=layers.stop))
                masks.apply()
                self.recalibrate(model)
                result = self.stage(model, masks, stage, epochs_before=done)
            done += self.recipe.epochs
        if result is None:
            raise ValueError("--schedule layerwise: expected a rate that removes at least a filter")
        return result

    def stage(
        self, model: nn.Module, masks: ParameterMasks | None, stage: str, *, epochs_before: int
    ) -> FitResult:
        """Fine-tune the stage of that name; `model` ends with the best weights of it."""
        batch_size = self.recipe.batch_size
        result = fit(
            model,
            batches_of=self.images.training_batches(batch_size, self.recipe.seed, stage),
            steps=self.images.steps(batch_size),
            recipe=self.recipe,
            evaluate=self.images.accuracies,
            select_on=self.select_on,
            checkpoints=self.job,
            stage=stage,
            log=self.log,
            after_step=None if masks is None else masks.apply,
            teacher=self.teacher,
            step_offset=epochs_before,
        )
        best = self.job.best
        fill_model(model, state_dict_of(load_file(best), best), best)
        return result


def finetuning_of(
    config: PruneConfig, dense: nn.Module, images: Images, job: JobFolder, log: RunLog
) -> Finetuning:
    """Return the fine-tuning that the options ask for; `dense` teaches where they say so."""
    recipe = config.training_recipe(config.seed)
    teacher = dense if config.distill else None
    recalibration = config.recalibrate if config.recalibrates else 0
    how = {"teacher": teacher, "recalibration": recalibration}
    return Finetuning(images, recipe, config.select_on, job, log, **how)
