"""Fine-tuning by the schedule that the options name: at once, conv by conv, or in steps."""

import copy

import torch.nn as nn

from utils.options.prune_options import PruneConfig
from utils.planning.finetune import Finetuned, Finetuning, stages_of
from utils.planning.iterative import IterativePruning
from utils.planning.plan import Planned
from utils.removal.masks import ChannelMasks
from utils.removal.surgery import remove_filters


def finetune_by_schedule(
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
    stages = stages_of(planned.dense, config.start_cov)
    result = tuning.layerwise(model, planned.graph, planned.plan, stages)
    if config.mode == "remove":
        model = remove_filters(model, planned.graph, planned.plan.masks())
    return Finetuned(model, result, planned)
