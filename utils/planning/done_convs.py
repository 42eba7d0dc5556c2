"""Convs that are pruned already when `prune` begins, as HRank's --start_cov counts them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch.nn as nn
from torch import Tensor

from utils.graph.filters import filters_first
from utils.planning.plan import Planned
from utils.pruning.plan import LayerPlan, PruningPlan
from utils.removal.mask_pickle import read_masks
from utils.removal.surgery import remove_filters


def with_done_convs(planned: Planned, start_cov: int, resume_mask: Path | None) -> Planned:
    """Return the plan whose convs of the first `start_cov` rates keep what they keep already.

    That is what an HRank mask file says or, without one, all filters that are not zero.

    Raises:
        ValueError: such a conv has a rate that removes filters, but no filter of it is gone; or the
            mask file cannot be read, or does not fit.
    """
    model, known = planned.dense.model, planned.dense.layers
    done = {layer.conv for layer in known.layers if layer.rate < start_cov}
    if resume_mask is None:
        masks, source = _nonzero_filters(model, done), "the checkpoint"
    else:
        masks, source = read_masks(resume_mask, model, planned.graph), f"mask file {resume_mask}"
    plan = PruningPlan(
        tuple(
            _as_done(layer, masks.get(layer.conv), source) if layer.conv in done else layer
            for layer in planned.plan.layers
        )
    )
    uniform = planned.uniform and plan.num_kept() == planned.plan.num_kept()
    slim = remove_filters(model, planned.graph, plan.masks(), align=planned.align)
    return replace(planned, plan=plan, slim=slim, uniform=uniform)


def _nonzero_filters(model: nn.Module, convs: set[str]) -> Mapping[str, Tensor]:
    """Return {conv: bool [filters]}, True where a filter has a weight other than zero."""
    return {conv: filters_first(model.get_submodule(conv)).flatten(1).any(1) for conv in convs}


def _as_done(layer: LayerPlan, mask: Tensor | None, source: str) -> LayerPlan:
    gone = 0 if mask is None else int((~mask).sum())
    if gone == 0 and layer.removed == 0:
        return layer
    if gone in (0, layer.filters):
        raise ValueError(
            f"--start_cov says that {layer.conv!r} is pruned already, but {source} zeroes {gone} "
            f"of its {layer.filters} filters: expected some to be gone, by its rate {layer.removed}"
        )
    kept = tuple(mask.nonzero().flatten().tolist())
    reason = f"pruned already, as {source} has it"
    return replace(layer, kept=kept, cut_score=None, tied_at_cut=False, reason=reason)
