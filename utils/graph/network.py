"""A network as a value: the model, and all that is known of it, so that nothing is looked up."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph, trace_channels
from utils.graph.emptied import is_emptied
from utils.graph.graph_layers import graph_layers
from utils.graph.inputs import placed
from utils.graph.prunable import RankLayers
from utils.runs.checkpoint import sha256_of

FORMS = ("dense", "mask", "remove")


@dataclass(frozen=True, eq=False)
class Network:
    """A network and what is known of it. It is made where it is opened; all below takes it whole.

    `spec` and `arguments` are what it was built by, for files and messages. `official` is what the
    publications say of it, a `utils.paper.official.Official`: only that room and those above look
    into it.

    In the form "mask" the model has dense shapes, with zeros inside; in the form "remove" it is
    small. `masks` then say which filters stay, and `before` those of earlier removals, in order:
    a network that was pruned once may be the dense one of the next time.
    """

    model: nn.Module
    spec: str
    example: Any  # a black image [1, C, H, W]; from Python also a tuple or dict of inputs
    num_classes: int
    known_layers: RankLayers | None  # of the registry's networks; of others the graph knows them
    official: Any
    arguments: str = ""  # as --arch_args spells them
    form: str = "dense"  # one of FORMS
    masks: Mapping[str, Tensor] = field(default_factory=dict)  # {conv: bool [filters]}
    before: tuple[Mapping[str, Tensor], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    added_biases: tuple[str, ...] = ()  # convs and linears with a bias that the dense one lacks
    checkpoint: Path | None = None  # the file that it came from

    @cached_property
    def checkpoint_sha256(self) -> str | None:
        """The SHA-256 of the file that it came from; None without one."""
        return None if self.checkpoint is None else sha256_of(self.checkpoint)

    @cached_property
    def graph(self) -> ChannelGraph:
        """The channel graph of the model as it is, traced once."""
        return trace_channels(self.model, self.image)

    @cached_property
    def layers(self) -> RankLayers:
        """The prunable layers that are left, with their rates and rank sites."""
        if self.known_layers is None:
            return graph_layers(self.model, self.graph, self.image)
        known = self.known_layers.layers
        left = (x for x in known if not is_emptied(self.model.get_submodule(x.conv)))
        return replace(self.known_layers, layers=tuple(left))

    @property
    def named(self) -> dict[str, str | None]:
        """What summaries call the network by: its spec, and the file that it came from."""
        path = None if self.checkpoint is None else str(self.checkpoint)
        return {"arch": self.spec, "checkpoint": path}

    @property
    def image(self) -> Any:
        """The example in the model's dtype and on its device."""
        return placed(self.example, self.model)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that the network reads."""
        return tuple(self.example.shape[2:])

    @property
    def image_channels(self) -> int:
        """Channels of the images that the network reads: 3, or 1 of gray ones."""
        return self.example.shape[1]
