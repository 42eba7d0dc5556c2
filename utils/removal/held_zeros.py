"""Zeros that a smaller network still holds, where it could not do without their places."""

from collections.abc import Mapping

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.removal.copies import copied
from utils.removal.masks import ParameterMasks
from utils.removal.record import last_removal
from utils.removal.surgery import remove_channels


@torch.no_grad()
def held_zeros(
    dense: nn.Module, graph: ChannelGraph, masks: Mapping[str, Tensor], slim: nn.Module
) -> ParameterMasks | None:
    """Return the masks that keep zero what `slim` holds of removed filters; None if it holds none.

    `slim` is what `remove_filters` made of such a dense network with these masks.
    """
    ones, how = copied(dense), last_removal(slim)
    for parameter in ones.parameters():
        parameter.fill_(1)
    places = dict(remove_channels(ones, graph, masks, how=how, check=False).named_parameters())
    held, own = ParameterMasks(), dict(dense.named_parameters())
    for name, parameter in slim.named_parameters():
        if name in own and not places[name].all():
            held.add(name.rpartition(".")[0], parameter, places[name].detach().to(parameter))
    return held if held.parameters else None
