"""The channel graph of a network: which channels there are, and which depend on which filters.

One mechanism for all architectures: run the network on an example, and on channel labels beside it.
The result answers, for any set of filter masks, which channels are then zero, which are still
needed, and which places a smaller network must have.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.alignment import Ends, alignments
from utils.graph.filters import filters_first
from utils.graph.forward_pass import left_alone, watching_modules
from utils.graph.inputs import called, repeated
from utils.graph.parameters import ParameterLabels
from utils.graph.presence import spread
from utils.graph.relations import (
    FIRST_CHANNEL,
    Decided,
    Filters,
    Norm,
    Relation,
    Source,
    Whole,
)
from utils.graph.tracing import LabelRun, Run
from utils.runs.borrowed_state import evaluating, training
from utils.runs.exported import check_names

Masks = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """What a network did on an example, and the relations between its channels.

    It holds no weights: a graph traced once serves every network of the same shape.

    Attributes:
        runs: the operations of eval mode, and those of train mode where they differ.
        parameters: {name: labels of its positions along each dimension} of what was read.
        masked: {name: dimensions along which filters' masks zero it}.
        alignable: {layer: how it may pick from its input and write into a wider output}.
        example: the inputs that the network was traced on, of one image.
        trains_not: why it does not run in train mode on the example, "" if it does.
    """

    runs: tuple[Run, ...]
    relations: tuple[Relation, ...]
    num_labels: int
    parameters: Mapping[str, tuple[Tensor, ...]]
    masked: Mapping[str, tuple[int, ...]]
    alignable: Mapping[str, Ends]
    example: Any
    trains_not: str = ""

    def filters(self) -> dict[str, int]:
        """Return the number of filters of every conv and linear, in the order they run."""
        return {r.module: len(r.outputs) for r in self._layers() if r.maskable}

    def widths(self) -> dict[str, int]:
        """Return the number of channels that a mask of each conv, linear and norm has."""
        norms = {r.module: len(r.outputs) for r in self.relations if isinstance(r, Norm)}
        return {**self.filters(), **norms}

    def weight(self, model: nn.Module, layer: str) -> Tensor:
        """Return the weight [filters, ...] of a layer, or what of its parameters the masks zero."""
        rows = next(r.rows[0] for r in self._layers() if r.module == layer)
        module = dict(model.named_modules()).get(layer)
        weight, own = getattr(module, "weight", None), self.parameters.get(f"{layer}.weight")
        dims = [dim for dim, labels in enumerate(own or ()) if torch.equal(labels, rows)]
        if dims:
            return weight.detach().movedim(dims[0], 0)
        dim = int(getattr(module, "transposed", False))
        made = own is None and isinstance(weight, Tensor) and weight.dim() > dim
        if made and weight.size(dim) == len(rows):
            return filters_first(module)
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name, dims in self.masked.items():
            for dim in dims:
                if len(self.parameters[name][dim]) == len(rows) and name.startswith(layer):
                    return tensors[name].detach().movedim(dim, 0)
        raise ValueError(f"layer {layer!r}: expected a parameter with {len(rows)} filters")

    def alive(self, masks: Masks, *, unmasked: Tensor | None = None) -> Tensor:
        """Return bool [num_labels]: may the channel be non-zero once the masks are applied?

        `masks` maps module names to bool [filters], True is kept; modules left out are whole. A
        norm needs a mask only where it zeroes other channels than those it reads as zero. What
        parameters the network's own code adds to channels is masked with them, but for positions
        with the labels `unmasked` [K].

        Raises:
            ValueError: if a mask names no conv or linear, or has another length.
        """
        self._check(masks)
        alive = torch.zeros(self.num_labels, dtype=torch.bool)
        alive[1:FIRST_CHANNEL] = True
        if unmasked is not None:
            alive[unmasked] = True
        before = -1
        while before != int(alive.sum()):  # a parameter that is read twice stays for either
            before = int(alive.sum())
            for relation in self.relations:
                relation.spread_alive(alive, masks)
        return alive

    def needed(self, alive: Tensor) -> Tensor:
        """Return bool [num_labels]: does the network's output depend on the channel?"""
        needed = torch.zeros_like(alive)
        before = -1
        while before != int(needed.sum()):
            before = int(needed.sum())
            for relation in reversed(self.relations):
                relation.spread_needed(needed, alive)
        return needed

    def used(
        self, masks: Masks, *, unmasked: Tensor | None = None, folded: Tensor | None = None
    ) -> Tensor:
        """Return bool [num_labels]: the channels that are alive and needed.

        Constants with the labels `folded` [K] count as zeros; for `unmasked` see `alive`.
        """
        alive = self.alive(masks, unmasked=unmasked)
        if folded is not None:
            alive[folded] = False
        return alive & self.needed(alive)

    def kept(self, masks: Masks, *, unmasked: Tensor | None = None) -> Tensor:
        """Return bool [num_labels]: the places that a smaller network must have.

        Those of alive and needed channels, and what cannot go without them: whole blocks of a
        grouped conv or group norm, places beside others in a sum, one zero of what has none left.
        For `unmasked` see `alive`.
        """
        return self.kept_of(self.alive(masks, unmasked=unmasked))

    def kept_of(self, alive: Tensor) -> Tensor:
        """Return places as `kept` does, of channels that are `alive` [num_labels]."""
        return self.respread(alive & self.needed(alive), ())

    def respread(
        self, keep: Tensor, whole: Iterable[Tensor], *, plain: Iterable[str] = ()
    ) -> Tensor:
        """Return places as `kept` does, if those in `keep` and all labels in `whole` stay.

        Layers in `plain` are not aligned.
        """
        keep = keep.clone()
        for labels in whole:
            keep[labels] = True
        return spread(self.relations, keep, self.loose(plain))

    def loose(self, plain: Iterable[str] = ()) -> dict[str, bool]:
        """Return {layer that may be aligned: is it a norm that may leave out zeros?}."""
        plain = frozenset(plain)
        return {n: ends.alignment.norm for n, ends in self.alignable.items() if n not in plain}

    def kept_positions(self, keep: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return {module: (output positions, input positions)} of what its parameters keep."""
        kept: dict[str, tuple[Tensor, Tensor]] = {}
        for relation in self.relations:
            if isinstance(relation, Filters | Norm):
                outputs = keep[relation.rows[0]]
                inputs = outputs
                if isinstance(relation, Filters):
                    inputs = keep[relation.columns]
                    if relation.groups > 1 or not len(relation.columns):
                        blocks = outputs.reshape(relation.groups, -1).any(1, keepdim=True)
                        width = len(relation.inputs) // relation.groups
                        inputs = blocks.expand(-1, width).flatten()
                kept[relation.module] = outputs.nonzero().flatten(), inputs.nonzero().flatten()
        return kept

    def sizes(self, keep: Tensor) -> dict[str, tuple[Tensor, ...]]:
        """Return {parameter: kept positions along each dimension} of those that get smaller."""
        found = {}
        for name, vectors in self.parameters.items():
            flags = [keep[vector] | (len(vector) == 1) for vector in vectors]
            if not all(bool(flag.all()) for flag in flags):
                found[name] = tuple(flag.nonzero().flatten() for flag in flags)
        return found

    def protected(self, *, barriers: bool = True) -> set[str]:
        """Return the layers whose filters are not pruned: they reach the output, or a barrier."""
        needed = torch.zeros(self.num_labels, dtype=torch.bool)
        everything = torch.ones(self.num_labels, dtype=torch.bool)
        for relation in reversed(self.relations):
            if isinstance(relation, Whole) and relation.barrier:
                needed[relation.inputs] |= barriers
            elif not isinstance(relation, Filters | Decided):
                relation.spread_needed(needed, everything)
        return {r.module for r in self._layers() if needed[r.outputs].any()}

    def reads_its_input(self, masks: Masks) -> bool:
        """Return whether the output still depends on the input once the masks are applied."""
        used = self.used(masks)
        return any(type(r) is Source and used[r.outputs].any() for r in self.relations)

    def _layers(self) -> list[Filters]:
        return [r for r in self.relations if isinstance(r, Filters)]

    def _check(self, masks: Masks) -> None:
        widths = self.widths()
        for module, mask in masks.items():
            if module not in widths:
                raise ValueError(f"mask for {module!r}: the network has no such conv or linear")
            if mask.shape != (widths[module],) or mask.dtype != torch.bool:
                raise ValueError(
                    f"mask for {module!r}: expected bool [{widths[module]}], "
                    f"got {mask.dtype} {list(mask.shape)}"
                )


@torch.no_grad()
def trace_channels(model: nn.Module, example: Any) -> ChannelGraph:
    """Run a network on an example and label its channels; the model is left as it was.

    `example` is one input of the network, [N, C, H, W], or a tuple of inputs, or a dict of them by
    name; only the first image is used. A list of dicts among them says what each image holds.

    Raises:
        ValueError: if the network cannot be run on the example; the message names the module whose
            code raises, and why; or if a module has a name that no exported network can have.
    """
    check_names(model)
    with torch.device("cpu") if torch.get_default_device().type == "meta" else nullcontext():
        return _traced(model, example)


def _traced(model: nn.Module, example: Any) -> ChannelGraph:
    labels = ParameterLabels(model)
    first = _run(model, labels, example, train=False)
    runs, trains_not = [first], ""
    try:
        second = _run(model, labels, example, train=True)
        if [o.name for o in second.operations] != [o.name for o in first.operations]:
            runs.append(second)
    except ValueError as error:  # a network may train on what the example does not hold
        trains_not = str(error)
    relations = tuple(relation for run in runs for relation in run.relations)
    graph = ChannelGraph(
        tuple(runs),
        relations,
        labels.num_labels,
        labels.labels,
        {name: tuple(sorted(dims)) for name, dims in labels.masked.items()},
        alignments(runs, labels.modules),
        repeated(example, 1),
        trains_not,
    )
    return replace(graph, relations=tuple(_of_use(graph)))


def _of_use(graph: ChannelGraph) -> Iterator[Relation]:
    """Yield the relations, but for what mixes channels into something that nothing reads."""
    needed = graph.needed(torch.ones(graph.num_labels, dtype=torch.bool))
    for relation in graph.relations:
        if not isinstance(relation, Whole) or needed[relation.outputs].any():
            yield relation


def _run(model: nn.Module, labels: ParameterLabels, example: Any, *, train: bool) -> Run:
    mode = training if train else evaluating
    with left_alone(model), mode(model):
        inputs = repeated(example, 2, model)  # a batch is no channel
        run = LabelRun(labels, training=train)
        run.source(inputs)
        try:
            with watching_modules(run), run:
                outputs = called(model, inputs)
        except Exception as error:
            raise ValueError(_sentence(model, run, error)) from error
        run.output(outputs)
    return run.run


def _sentence(model: nn.Module, run: LabelRun, error: Exception) -> str:
    """Say in one sentence what the network's own code raised, and in which module."""
    lines = str(error).strip().splitlines()
    reason = lines[0][:200] if lines else repr(error)
    path = run.sites.path
    where = f" in module {path!r} ({type(run.parameters.modules[path]).__name__})" if path else ""
    return f"{type(model).__name__} does not run on the example{where}: {reason}"
