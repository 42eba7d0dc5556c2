"""Runs a network on an example, with the labels of its channels beside its values.

The network's own code runs as ever, with real tensors; every torch function that it calls passes
here. So control flow, sizes, optional arguments, lists and dicts need no care.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.overrides import TorchFunctionMode

from utils.graph.attention import note_width
from utils.graph.call_sites import CallSite, CallSites
from utils.graph.counted import counted, labels_counted, numbers_in
from utils.graph.emptied import Nothing, is_emptied
from utils.graph.forward_pass import is_self_attention, seen_through
from utils.graph.inputs import inputs_labelled
from utils.graph.labels import along, everywhere, narrowed, varying, vector_along
from utils.graph.operations import FACTS, SIZED, SIZES, operation_name
from utils.graph.parameters import ParameterLabels
from utils.graph.relations import (
    FIRST_CHANNEL,
    ZERO,
    Absent,
    Decided,
    Filters,
    Norm,
    Output,
    Relation,
    Source,
    Stays,
    Whole,
)
from utils.graph.rules import Call, values_of
from utils.graph.values import Value, Values, live, shared, tensors_in


@dataclass(frozen=True, eq=False)
class Operation:
    """One torch function that the network called.

    `reads` and `gives` are the values of the tensors among its arguments and results; `writes` are
    {place among the arguments: value} of those it wrote to. If it `moves` data, its results are
    what the same call makes of labels; it is `rigid` if the code names their sizes in plain
    numbers. `counts` [K] are the channels that numbers among its arguments count.
    """

    site: CallSite
    moves: bool
    rigid: bool
    reads: tuple[Value, ...]
    gives: tuple[Value, ...]
    writes: Mapping[int, Value]
    made: tuple[int, int]  # which of the run's relations it made
    counts: Tensor | None

    @property
    def name(self) -> str:
        """The function's name."""
        return self.site.function

    @property
    def path(self) -> str:
        """The module whose code calls it, "" for the network's own."""
        return self.site.path

    @property
    def varies(self) -> bool:
        """True if channels lie along some dimension of what it gives."""
        found = [*self.gives, *self.writes.values()]
        return any(varying(plane) for value in found for plane in value.planes)


@dataclass(eq=False)
class ModuleCall:
    """One call of a module: the operations it made, what it read first, what it gave."""

    path: str
    start: int
    relation: int
    takes: Value | None
    stop: int = -1
    relation_stop: int = -1
    gives: Value | None = None


@dataclass(eq=False)
class Run:
    """What a network did in one mode: its operations and module calls, in order.

    `loose` are labels of no channel: of what an input says of its images, of what all channels
    together decided, and of what is made of such alone. What is computed of nothing else may depend
    on the numbers, as how many boxes a detector finds.
    """

    training: bool
    loose: set[int] = field(default_factory=set)
    operations: list[Operation] = field(default_factory=list)
    calls: list[ModuleCall] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)


class LabelRun(TorchFunctionMode):
    """Watches one forward pass of a network, and notes the relations between its channels."""

    def __init__(self, labels: ParameterLabels, *, training: bool):
        super().__init__()
        self.parameters, self.run = labels, Run(training)
        self.values = Values(labels.value, labels.names)
        self._counts: dict[str, int] = {}
        self.sites = CallSites(labels.paths)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = operation_name(func)
        if is_self_attention(func, args):
            value, start = self.values.get(args[0]), len(self.run.relations)
            with seen_through(self):
                out = func(*args, **kwargs)
            note_width(self, value, start)
            return out
        if name in FACTS:
            return func(*args, **kwargs)
        before = [(t, _version(t)) for t in tensors_in((args, kwargs))]
        operands = tuple((t, self.values.get(t)) for t, _ in before)
        out = func(*args, **kwargs)
        if name in SIZES and not isinstance(out, Tensor):
            return self._size(args[0], out)
        site = self.sites.next(name)
        written = [i for i, (t, version) in enumerate(before) if _version(t) != version]
        call = Call(self, name, func, args, kwargs, out, operands, bool(written))
        self._note(call, site, written)
        return out

    # --- what rules may do ---

    def record(self, kind: type[Relation], node: str, count: int, **fields: Any) -> Tensor:
        """Note a relation that gives out `count` fresh labels, and return them."""
        outputs = self.parameters.fresh(count)
        self.run.relations.append(kind(node, outputs, **fields))
        inputs = fields.get("inputs")
        if inputs is None or issubclass(kind, Filters | Norm):
            return outputs
        if kind is Whole and count == 1 or self._is_loose(inputs):
            self.run.loose.update(outputs.tolist())
        return outputs

    def _is_loose(self, labels: Tensor) -> bool:
        """True for labels of no channel, at least one of them loose."""
        found, loose = labels[labels >= FIRST_CHANNEL], self.run.loose
        if not len(found) or int(found[0]) not in loose:
            return False
        return loose.issuperset(found.unique().tolist())

    def stays(self, labels: Tensor, node: str) -> None:
        """Let channels or positions of parameters stay where they are."""
        labels = labels[labels >= FIRST_CHANNEL].unique()
        if len(labels):
            self.run.relations.append(Stays(node, labels))

    def is_padding(self, labels: Tensor) -> Tensor:
        """Return which labels [C] are of zeros that are no channel's, bool [C]."""
        absent = [r.outputs for r in self.run.relations if type(r) is Absent]
        return torch.isin(labels, torch.cat([torch.tensor([ZERO]), *absent]))

    def node(self, name: str) -> str:
        """Return a name for an operation in the running module that no other has."""
        where = f"{name} in {self.sites.path}" if self.sites.path else name
        self._counts[where] = self._counts.get(where, 0) + 1
        count = self._counts[where]
        return where if count == 1 else f"{where}, {count}"

    # --- modules ---

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> ModuleCall:
        """Note that a module is called."""
        self.sites.enter(module)
        first = next(tensors_in((args, kwargs)), None)
        takes = None if first is None else self.values.get(first)
        call = ModuleCall(self.sites.path, len(self.run.operations), len(self.run.relations), takes)
        self.run.calls.append(call)
        return call

    def leave(self, call: ModuleCall, out: Any) -> None:
        """Note what a module's call gave."""
        self.sites.leave()
        module = self.parameters.modules[call.path]
        if is_emptied(module):
            zeros = self.record(Nothing, self.node("zeros"), module.width)
            self.values.put(out, live(along(zeros, out.dim() + module.alignment.gives, out.shape)))
        call.stop, call.relation_stop = len(self.run.operations), len(self.run.relations)
        call.gives = self.values.get(out) if isinstance(out, Tensor) else None

    # --- the network's inputs and outputs ---

    def source(self, inputs: Any) -> None:
        """Label the channels of the network's inputs."""
        for tensor, channels in inputs_labelled(inputs):
            labels = self.record(Source, self.node("input"), channels)
            self.values.put(tensor, live(along(labels, 1, tensor.shape)))
            if channels == 1 < tensor.size(1):
                self.run.loose.update(labels.tolist())

    def output(self, outputs: Any) -> None:
        """Note what the network returns."""
        for tensor in tensors_in(outputs):
            self._read_whole(self.values.get(tensor), "output")
        numbers = labels_counted(outputs)
        if numbers is not None:
            self._keep_counted(numbers, "output")

    def _read_whole(self, value: Value, node: str, kind: type[Output] = Output) -> None:
        for plane in value.planes:
            labels = plane_labels(plane)
            if value.live:
                empty = torch.empty(0, dtype=torch.long)
                self.run.relations.append(kind(self.node(node), empty, inputs=labels))
            else:
                self.stays(labels, node)

    def _keep_counted(self, labels: Tensor, node: str) -> None:
        real = labels[labels >= FIRST_CHANNEL]
        if len(real):
            self.record(Whole, self.node(node), 1, inputs=real[None])
            last = self.run.relations[-1].outputs
            empty = torch.empty(0, dtype=torch.long)
            self.run.relations.append(Output(self.node(node), empty, inputs=last))

    # --- one operation ---

    def _size(self, tensor: Tensor, size: Any) -> Any:
        """Return a size in numbers that remember what they count."""
        value = self.values.get(tensor)
        if isinstance(size, torch.Size):
            return torch.Size(_counted_size(value, dim, n) for dim, n in enumerate(size))
        if not isinstance(size, int):
            return size
        dims = {dim for plane in value.planes for dim in varying(plane)}
        matching = [dim for dim in dims if tensor.size(dim) == size]
        if len(matching) == 1:
            return _counted_size(value, matching[0], size)
        if dims and size == tensor.numel():
            return counted(size, torch.cat([plane_labels(plane) for plane in value.planes]))
        return size

    def _note(self, call: Call, site: CallSite, written: list[int]) -> None:
        start = len(self.run.relations)
        found = list(tensors_in(call.out))
        interesting = any(value.planes for _, value in call.operands)
        if interesting and not found and not written:  # a number, which Python may decide by
            for _, value in call.operands:
                self._read_whole(value, call.name, Decided)
        self._numbers(call)
        gives = (
            values_of(call, found) if interesting or call.name in SIZED else [Value()] * len(found)
        )
        gives = [self._merged(call, value) for value in gives]
        writes = {}
        targets = [call.args[0]] if call.name == "setitem" else found
        for place in written:
            tensor = call.operands[place][0]
            if any(shared(tensor, t) for t in targets) and all(t is not tensor for t in targets):
                continue  # `x[i] += x[j]` writes to x[i] alone, though x[j] is in its memory
            same = [value for t, value in zip(found, gives, strict=True) if t is tensor]
            value = same[0] if same else call.assigned(tensor)
            if value is not None:
                self.values.overwrite(tensor, value)
                writes[place] = value
        if not call.reshapes_in_place():
            arguments = {id(tensor) for tensor, _ in call.operands}
        else:
            arguments = set()
        for tensor, value in zip(found, gives, strict=True):
            if id(tensor) not in arguments and value.planes:
                self.values.put(tensor, value)
        if not interesting and not any(value.planes for value in gives):
            return
        reads = tuple(value for _, value in call.operands)
        made = start, len(self.run.relations)
        self.run.operations.append(
            Operation(
                site,
                call.moves,
                call.is_rigid(),
                reads,
                tuple(gives),
                writes,
                made,
                labels_counted((call.args, call.kwargs)),
            )
        )

    def _merged(self, call: Call, value: Value) -> Value:
        """Return a value with one label where several are of no channel: boxes of many images."""
        if not value.live or len(value.planes) != 1 or not varying(value.planes[0]):
            return value
        labels = narrowed(value.planes[0]).flatten()
        if not self._is_loose(labels):
            return value
        call.moves = False
        whole = self.record(Whole, self.node(call.name), 1, inputs=labels.unique()[None])
        return live(everywhere(whole, value.planes[0].shape))

    def _numbers(self, call: Call) -> None:
        """Keep whole what numbers count that end up in arithmetic."""
        if call.takes_sizes():
            return
        for number in numbers_in((call.args, call.kwargs)):
            self._keep_counted(number.labels, call.name)


def _version(tensor: Tensor) -> int:
    """Return how often a tensor was written to; of those of inference mode nobody knows."""
    return 0 if tensor.is_inference() else tensor._version


def plane_labels(plane: Tensor) -> Tensor:
    """Return the labels that occur in a plane [K]."""
    return narrowed(plane).unique()


def _counted_size(value: Value, dim: int, size: int) -> int:
    for plane in value.planes:
        if dim in varying(plane):
            exact = varying(plane) == [dim]
            labels = vector_along(plane, dim) if exact else plane_labels(plane)
            return counted(size, labels, exact=exact)
    return size
