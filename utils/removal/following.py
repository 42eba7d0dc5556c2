"""Whether a smaller network's own code puts its channels where they belong: found by running it.

Data movement is run on labels beside the values: each value must hold the labels that are left of
those of the full network. Where it does not (a chunk whose halves shrank differently, a split into
fixed sizes), more places are kept there (`misfits.py`), and it is tried again.
"""

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.overrides import TorchFunctionMode

from utils.graph.aligned import is_aligned
from utils.graph.channel_graph import ChannelGraph
from utils.graph.forward_pass import (
    is_self_attention,
    left_alone,
    seen_through,
    watching_modules,
)
from utils.graph.inputs import called, inputs_labelled, repeated
from utils.graph.labels import along, left_of, narrowed, opened, varying
from utils.graph.movements import data_of, move, tidy
from utils.graph.operations import FACTS, JOINS, SIZED, SIZES, operation_name
from utils.graph.parameters import ParameterLabels
from utils.graph.relations import CONSTANT, FIRST_CHANNEL, FIXED, ZERO, Filters, Norm, Source
from utils.graph.tracing import ModuleCall, Operation, Run
from utils.graph.values import Value, Values, live, tensors_in
from utils.removal.misfits import Misfit, alike
from utils.runs.borrowed_state import evaluating, training


class _Unfit(Exception):
    """An operation of the smaller network gives other channels than it must."""


@torch.no_grad()
def misfit(slim: nn.Module, graph: ChannelGraph, keep: Tensor) -> Misfit | None:
    """Return the first operation of `slim` that does not follow the places in `keep`, if any."""
    for number, run in enumerate(graph.runs):
        mode = training if run.training else evaluating
        with left_alone(slim), mode(slim):
            inputs = repeated(graph.example, 2, slim)
            follower = Follower(slim, graph, run, keep)
            follower.source(inputs)
            try:
                with watching_modules(follower), follower:
                    called(slim, inputs)
                follower.finish()
            except Exception as error:  # the network's code raises what it likes
                lines = str(error).strip().splitlines() or [repr(error)]
                at = min(follower.at, len(run.operations) - 1)
                where = run.operations[at]
                reason = f"{where.name} in {where.path or 'the network'}: {lines[0][:200]}"
                return Misfit([(number, at)], reason, alike(slim, run, number, at))
    return None


class Follower(TorchFunctionMode):
    """Runs a smaller network beside the record of the full one."""

    def __init__(self, slim: nn.Module, graph: ChannelGraph, run: Run, keep: Tensor):
        super().__init__()
        self.run, self.keep = run, keep
        known = ParameterLabels(slim)
        self._full = graph.parameters
        self._paths = known.paths
        self._sources = iter([r for r in run.relations if type(r) is Source])
        self.values = Values(self._parameter, known.names)
        self._skipped: list[nn.Module] = []
        varied = [i for i, o in enumerate(run.operations) if o.varies]
        self._last = varied[-1] if varied else -1
        self._loose = self.loose(graph)
        self.at = self._next(0)

    def source(self, inputs: Any) -> None:
        """Label the channels of the inputs."""
        for tensor, _ in inputs_labelled(inputs):
            self.values.put(tensor, live(along(next(self._sources).outputs, 1, tensor.shape)))

    def loose(self, graph: ChannelGraph) -> Tensor:
        """Return bool [num_labels]: what operations on nothing else need not be met for.

        That is what is of no channel, what layers give that reach the output, and what is made of
        such alone: how a detector goes on with its boxes depends on the numbers.
        """
        protected = graph.protected()
        loose = torch.zeros(graph.num_labels, dtype=torch.bool)
        loose[[ZERO, CONSTANT, FIXED, *self.run.loose]] = True
        for relation in self.run.relations:
            inputs = getattr(relation, "inputs", None)
            if isinstance(relation, Filters):
                loose[relation.outputs] = relation.module in protected
            elif inputs is not None and not isinstance(relation, Norm) and loose[inputs].all():
                loose[relation.outputs] = True
        return loose

    def _is_loose(self, value: Value) -> bool:
        planes = [narrowed(plane) for plane in value.planes]
        return all(bool(self._loose[p].all()) and not _is_filling(p) for p in planes)

    def _next(self, at: int) -> int:
        """Return the first operation from `at` on that has to be met."""
        while at <= self._last:
            known = self.run.operations[at]
            if not all(map(self._is_loose, (*known.reads, *known.gives, *known.writes.values()))):
                break
            at += 1
        return at

    def finish(self) -> None:
        """Raise an error unless every operation was met."""
        if self.at <= self._last:
            raise _Unfit("not reached any more")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = operation_name(func)
        if name in FACTS or name in SIZES or self._skipped or self.at > self._last:
            return func(*args, **kwargs)
        if is_self_attention(func, args):
            with seen_through(self):
                return func(*args, **kwargs)
        operands = list(tensors_in((args, kwargs)))
        values = [self.values.get(t) for t in operands]
        known = self.run.operations[self.at]
        if all(map(self._is_loose, values)) and not (name in SIZED and name == known.name):
            return func(*args, **kwargs)
        if name != known.name:
            raise _Unfit(f"{name} runs in its place")
        self.before(known, operands)
        moved = self._moved(known, func, args, kwargs, self._loose_reads(known, operands))
        out = func(*args, **kwargs)
        found = list(tensors_in(out))
        self._note(known, operands, found, moved)
        self.after(known, found)
        self.at = self._next(self.at + 1)
        return out

    def before(self, known: Operation, operands: list[Tensor]) -> None:
        """Be told of an operation that is met, before it runs; for subclasses."""

    def after(self, known: Operation, found: list[Tensor]) -> None:
        """Be told what it gave; for subclasses."""

    def _loose_reads(self, known: Operation, operands: list[Tensor]) -> dict[int, Value]:
        """Return the values that the run does not keep: it need not have met what made them."""
        pairs = list(zip(operands, known.reads, strict=False))
        loose = [(t, read) for t, read in pairs if read.planes and self._is_loose(read)]
        return {id(tensor): self._left(read, tensor) for tensor, read in loose}

    def _moved(
        self, known: Operation, func: Any, args: Any, kwargs: Any, loose: dict[int, Value]
    ) -> list[tuple[Tensor, ...]] | None:
        """Return what the operation makes of the planes of labels, for each tensor it gives."""
        if not known.moves:
            return None
        data = data_of(known.name, args, kwargs)
        given = [loose.get(id(t)) or self.values.get(t) for t in data]
        if any(v.live for v in given) or known.name in JOINS:
            if any(len(v.planes) > 1 for v in given):
                return None
            planes = [v.plane(t.shape) for v, t in zip(given, data, strict=True)]
            return [(tidy(p),) for p in move(known.name, func, args, kwargs, planes)]
        (value,) = given
        each = [move(known.name, func, args, kwargs, [plane]) for plane in value.planes]
        return [tuple(tidy(p) for p in planes) for planes in zip(*each, strict=True)]

    def _note(
        self,
        known: Operation,
        operands: list[Tensor],
        found: list[Tensor],
        moved: list[tuple[Tensor, ...]] | None,
    ) -> None:
        if len(found) != len(known.gives):
            raise _Unfit(f"gives {len(found)} tensors, not {len(known.gives)}")
        for number, (tensor, value) in enumerate(zip(found, known.gives, strict=True)):
            expected = self._left(value, tensor)
            if moved is not None and value.live:
                (plane,) = moved[number]
                if not _same(plane, expected.planes[0]):
                    raise _Unfit("other channels come out than must")
            if value.planes and not self._is_loose(value):
                self.values.put(tensor, expected)
        for place, value in known.writes.items():
            self.values.overwrite(operands[place], self._left(value, operands[place]))

    def _left(self, value: Value, tensor: Tensor) -> Value:
        """Return what is left of a value, in the shape of the smaller tensor."""
        planes = []
        for plane in value.planes:
            small = left_of(plane, self.keep)
            if small is None or small.dim() != tensor.dim():
                raise _Unfit("the channels that are left do not fill a tensor")
            if any(small.size(d) != tensor.size(d) for d in varying(plane)):
                raise _Unfit(f"gives shape {list(tensor.shape)}, not {list(small.shape)}")
            thin = opened(small)[
                tuple(slice(None) if d in varying(plane) else slice(1) for d in range(plane.dim()))
            ]
            planes.append(thin.expand(tensor.shape))
        return Value(tuple(planes), value.live, value.zeroing, value.origin)

    def _parameter(self, name: str) -> Value:
        if name not in self._full:
            return Value()
        vectors = [v[self.keep[v] | (len(v) == 1)] for v in self._full[name]]
        shape = torch.Size(len(v) for v in vectors)
        sizes = [len(v) for v in self._full[name]]
        planes = [along(v, d, shape) for d, v in enumerate(vectors) if sizes[d] > 1]
        return Value(tuple(planes), False, frozenset([name]), name)

    # --- modules: aligned layers are taken whole ---

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> ModuleCall | None:
        """Skip over what an aligned layer does."""
        if not is_aligned(module) or self._skipped or self.at > self._last:
            return None
        path = self._paths[id(module)]
        for call in self.run.calls:
            if call.path == path and self._next(call.start) == self.at:
                self._skipped.append(module)
                return call
        raise _Unfit(f"{path} is not called in its place")

    def leave(self, call: ModuleCall | None, out: Any) -> None:
        """Take up the record behind an aligned layer."""
        if call is not None:
            self._skipped.pop()
            self.values.put(out, self._left(call.gives, out))
            self.at = self._next(call.stop)


def _is_filling(labels: Tensor) -> bool:
    """True for constants that channels may be written into."""
    return bool(labels.numel()) and not bool((labels >= FIRST_CHANNEL).any())


def _same(plane: Tensor, expected: Tensor) -> bool:
    if plane.dim() != expected.dim():
        return False
    dims = set(varying(plane)) | set(varying(expected))
    picked = tuple(slice(None) if d in dims else slice(1) for d in range(plane.dim()))
    return torch.equal(plane[picked], expected[picked])
