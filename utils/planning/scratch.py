"""Training from scratch: what a pruned network's weights are worth (Liu et al., ICLR 2019)."""

from dataclasses import replace

from utils.options.networks import draw_like
from utils.planning.plan import Planned
from utils.removal.network_file import pruned_before
from utils.removal.surgery import remove_filters


def from_scratch(planned: Planned, seed: int) -> Planned:
    """Return the same plan for fresh weights, drawn by the seed as the architecture draws its own.

    The same filters go, so every layer has the same width and the same places in its stream.
    """
    before = planned.dense
    dense = pruned_before(draw_like(before, seed), before.before, before.model)
    masks = planned.plan.masks()
    slim = remove_filters(dense.model, planned.graph, masks, align=planned.align)
    return replace(planned, dense=dense, slim=slim)
