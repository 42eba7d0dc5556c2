"""The proof that a network without its constant channels computes what it computed, mode by mode.

What goes in eval mode is a number; in train mode it may be another one, since batch norms take the
batch's statistics. Where it is the same one, train mode is proven as well.
"""

from collections.abc import Mapping

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.relations import FIRST_CHANNEL
from utils.removal.constant_channels import ConstantRun
from utils.removal.copies import copied
from utils.removal.law import first_difference
from utils.runs.borrowed_state import evaluating, training

_NEAR = 1e-9  # of two numbers that are one: batch norms let rounding grow


def prove(
    dense: nn.Module,
    slim: nn.Module,
    graph: ChannelGraph,
    run: ConstantRun,
    gone: Mapping[int, Tensor],
    dead: Tensor,
) -> str:
    """Return why only eval mode is proven, "" if train mode is, too.

    Args:
        graph: that of `dense`, and `run` its constants in eval mode.
        gone: {id of a relation of eval mode: bool}, which of its inputs are left out as constants.
        dead: bool [num_labels], the channels that are zero once those filters are masked.

    Raises:
        ValueError: if the networks differ in a mode in which they may not.
    """
    otherwise = _unlike_in_training(dense, graph, run, gone, dead)
    modes = (evaluating,) if otherwise else (evaluating, training)
    difference = first_difference(dense, slim, graph, modes=modes)
    if difference is not None:
        raise ValueError(
            f"the network without its zero filters differs from the given one {difference}; "
            "nothing was changed"
        )
    return otherwise


def _unlike_in_training(
    dense: nn.Module,
    graph: ChannelGraph,
    run: ConstantRun,
    gone: Mapping[int, Tensor],
    dead: Tensor,
) -> str:
    """Return where a channel that goes is another constant in train mode, or none; "" if nowhere"""
    if graph.trains_not:
        return graph.trains_not
    try:
        trained = ConstantRun(copied(dense).cpu().double(), graph, train=True)
    except Exception as error:  # the network's code, in a mode that it need not have
        return f"it cannot be followed in train mode: {error}"
    alone = len(graph.runs) > 1  # the code of train mode is another one, where nothing is folded
    for relation in graph.runs[0].relations:
        if id(relation) in gone:
            read = run.reads[id(relation)]
            there = torch.zeros_like(read) if alone else trained.reads[id(relation)]
            if _differ(read, there, gone[id(relation)]):
                return f"{relation.node} reads another constant in train mode"
    for relation in graph.runs[-1].relations if alone else ():
        read = trained.reads.get(id(relation))
        lost = None if read is None else dead[relation.inputs] & (relation.inputs >= FIRST_CHANNEL)
        if read is not None and _differ(torch.zeros_like(read), read, lost):
            return f"{relation.node} reads what is not zero in train mode"
    return ""


def _differ(values: Tensor, others: Tensor, where: Tensor) -> bool:
    near = (values - others).abs() <= _NEAR * torch.maximum(values.abs(), others.abs()) + 1e-12
    return bool((where & ~near).any())
