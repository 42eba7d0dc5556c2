"""The channel graph of a network: which channels there are, and which depend on which filters.

One mechanism for all architectures: trace the network with torch.fx and run the trace on channel
labels (`channel_labels`). The result answers, for any set of filter masks, which channels are then
zero and which are still needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx as fx
import torch.nn as nn
from torch import Tensor

from utils.graph.labels import LabelRun
from utils.graph.relations import CONSTANT, Filters, Norm, Relation
from utils.graph.tracing import trace
from utils.runs.borrowed_state import evaluating


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """A network's trace, the labels of every value in it, and the relations between labels.

    It holds no weights: a graph traced once serves every network of the same shape.
    """

    graph: fx.Graph
    labels: Mapping[fx.Node, Any]  # a label tensor of the value's shape, or a plain value
    relations: tuple[Relation, ...]
    num_labels: int

    def filters(self) -> dict[str, int]:
        """Return the number of filters of every conv and linear, in the order they run."""
        return {r.module: len(r.outputs) for r in self.relations if isinstance(r, Filters)}

    def widths(self) -> dict[str, int]:
        """Return the number of channels that a mask of each conv, linear and norm has."""
        return {r.module: len(r.outputs) for r in self.relations if isinstance(r, Filters | Norm)}

    def alive(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Return bool [num_labels]: may the channel be non-zero once the masks are applied?

        `masks` maps module names to bool [filters], True is kept; modules left out are whole. A
        norm needs a mask only where it zeroes other channels than those it reads as zero.

        Raises:
            ValueError: if a mask names no conv or linear, or has another length.
        """
        self._check(masks)
        alive = torch.zeros(self.num_labels, dtype=torch.bool)
        alive[CONSTANT] = True
        for relation in self.relations:
            relation.spread_alive(alive, masks)
        return alive

    def needed(self, alive: Tensor) -> Tensor:
        """Return bool [num_labels]: does the network's output depend on the channel?"""
        needed = torch.zeros_like(alive)
        for relation in reversed(self.relations):
            relation.spread_needed(needed, alive)
        return needed

    def kept(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Return bool [num_labels]: the channels that a smaller network must still compute.

        Those are the alive and needed ones, and what cannot be dropped without them: whole blocks
        of a grouped conv or group norm, a shared module's filters if any of its calls needs them,
        and one zero channel of an operation that has none left.
        """
        alive = self.alive(masks)
        keep = alive & self.needed(alive)
        keep[CONSTANT] = True
        for relation in self.relations:
            relation.complete(keep)
            for labels in relation.never_empty():  # no tensor without channels: one zero stays
                if not keep[labels].any():
                    keep[labels[0]] = True
        for relation in self.relations:
            relation.complete(keep)
        for outputs in self._outputs_by_module().values():
            keep[outputs] = keep[outputs].any(0)
        return keep

    def kept_positions(self, keep: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return {module: (output positions, input positions)} of the parameters that `keep` needs.

        A module called twice reads what either call needs.
        """
        kept: dict[str, tuple[Tensor, Tensor]] = {}
        for relation in self.relations:
            if isinstance(relation, Filters | Norm):
                inputs = relation.reads(keep)
                if relation.module in kept:
                    inputs = inputs | kept[relation.module][1]
                kept[relation.module] = keep[relation.outputs], inputs
        return {m: (o.nonzero().flatten(), i.nonzero().flatten()) for m, (o, i) in kept.items()}

    def protected(self) -> set[str]:
        """Return the convs and linears whose filters reach the output: the classifier."""
        needed = torch.zeros(self.num_labels, dtype=torch.bool)
        everything = torch.ones(self.num_labels, dtype=torch.bool)
        for relation in reversed(self.relations):
            if not isinstance(relation, Filters):
                relation.spread_needed(needed, everything)
        filters = [r for r in self.relations if isinstance(r, Filters)]
        return {r.module for r in filters if needed[r.outputs].any()}

    def _outputs_by_module(self) -> dict[str, Tensor]:
        """Return {module: labels [calls, C]} of modules that own parameters."""
        rows: dict[str, list[Tensor]] = {}
        for relation in self.relations:
            if isinstance(relation, Filters | Norm):
                rows.setdefault(relation.module, []).append(relation.outputs)
        return {module: torch.stack(outputs) for module, outputs in rows.items()}

    def _check(self, masks: Mapping[str, Tensor]) -> None:
        widths = self.widths()
        for module, mask in masks.items():
            if module not in widths:
                raise ValueError(f"mask for {module!r}: the network has no such conv or linear")
            if mask.shape != (widths[module],) or mask.dtype != torch.bool:
                raise ValueError(
                    f"mask for {module!r}: expected bool [{widths[module]}], "
                    f"got {mask.dtype} {list(mask.shape)}"
                )


def trace_channels(model: nn.Module, example: Tensor) -> ChannelGraph:
    """Trace a network and label its channels; the model is left as it was.

    `example` is one input of the network, [N, C, H, W]; its values do not matter.

    Raises:
        ValueError: if torch.fx cannot trace the model, or an operation cannot be followed; the
            message names the node, its operation and the module it stands in.
    """
    with evaluating(model), torch.no_grad():
        traced = trace(model)
        run = LabelRun(traced)
        parameter = next(model.parameters(), example)
        image = example[:1].to(parameter.device, parameter.dtype)
        run.run(image.repeat(2, *[1] * (image.dim() - 1)))  # two: a batch is not a channel
    return ChannelGraph(traced.graph, run.labels, tuple(run.relations), run.num_labels)
