"""Fine-tuning by the schedule that the options name: at once, conv by conv, or in steps."""

import copy

import torch.nn as nn

from utils.options.prune_options import PruneConfig
from utils.planning.finetune import Finetuned, Finetuning, stages_of
from utils.planning.iterative import IterativePruning
from utils.planning.plan import Planned
from utils.removal.held_zeros import held_zeros
from utils.removal.masks import ParameterMasks
from utils.removal.surgery import remove_filters
from utils.runs.notes import note

_UNLIKE_HRANK = (
    "schedule: all convs are pruned at once, and held-out train images choose the epoch; HRank's "
    "code prunes conv by conv and chooses on test images, as --recipe hrank does"
)


def finetune_by_schedule(
    config: PruneConfig,
    planned: Planned,
    tuning: Finetuning,
    *,
    model: nn.Module,
    masks: ParameterMasks | None,
) -> Finetuned:
    """Fine-tune by the schedule; `model` is what the plan leaves, with `masks` or made smaller."""
    if config.schedule == "iterative":
        return IterativePruning(config, planned, tuning).run()
    if config.schedule == "oneshot":
        if planned.dense.official.hrank and _is_plain(config):
            note(_UNLIKE_HRANK)
        if config.mode == "remove":
            removal = planned.dense.model, planned.graph, planned.plan.masks()
            masks = held_zeros(*removal, model)
        result = tuning.oneshot(model, masks)
        return Finetuned(model, result, planned)
    model = copy.deepcopy(planned.dense.model)
    stages = stages_of(planned.dense, config.start_cov)
    result = tuning.layerwise(model, planned.graph, planned.plan, stages)
    if config.mode == "remove":
        removed = planned.plan.masks()
        model = remove_filters(model, planned.graph, removed, align=planned.align)
    return Finetuned(model, result, planned)


def _is_plain(config: PruneConfig) -> bool:
    """Return whether the options are those of an official line: rates alone, no recipe."""
    others = config.recipe or config.ratio or config.rates or config.target
    by_rank = config.criterion == "rank" and config.layout == "hrank"
    return by_rank and not others and config.select_on == "val"
