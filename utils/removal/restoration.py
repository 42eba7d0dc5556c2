"""Restoration: the weights of a removed network, back where they stood in the dense one."""

import copy
from collections.abc import Mapping

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.removal.folding import folds
from utils.removal.record import NO_LABELS, Removal, last_removal
from utils.removal.surgery import masked_copy, places, smaller


@torch.no_grad()
def restore_weights(
    dense: nn.Module, graph: ChannelGraph, masks: Mapping[str, Tensor], removed: nn.Module
) -> None:
    """Write the weights of `removed` into `dense`, in place; masked, it then computes the same.

    `removed` is what `remove_filters` made of such a dense network with these masks, and may have
    been trained since. What it lacks stays in `dense` as it is.
    """
    numbered = copy.deepcopy(dense).double()  # each value of it becomes its own place, from 1
    for tensor in numbered.state_dict().values():
        tensor.copy_(torch.arange(1, tensor.numel() + 1).view_as(tensor))
    how = (last_removal(removed) or Removal(folded=NO_LABELS)) if masks else Removal()
    keep, _ = places(graph, masks, how)
    numbers = smaller(masked_copy(numbered, graph, masks, how), graph, keep).state_dict()
    weights = removed.state_dict()
    stays = dense.state_dict()
    for name in weights.keys() & stays.keys():  # gathers are new, heads of training alone are gone
        place = numbers[name].flatten().long() - 1
        stood = place >= 0  # a masked value that could not be removed was zeroed, its number too
        stays[name].view(-1)[place[stood]] = weights[name].flatten()[stood]
    if how.folded is not None:
        masked = masked_copy(dense, graph, masks, how)
        for name, amount in folds(masked, graph, keep, how.folded).items():
            rows = keep[graph.parameters[name][0]]
            stays[name][rows] -= amount[rows].to(stays[name])
