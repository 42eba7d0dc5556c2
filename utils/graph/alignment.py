"""Layers that may be aligned: they can pick from their input, and write into a wider output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.aligned import Alignment, places_of
from utils.graph.emptied import can_be_emptied, is_emptied
from utils.graph.labels import axis_vector, vector_along
from utils.graph.operations import COPIES
from utils.graph.relations import Filters, Norm, Source, Stays, Tied
from utils.graph.tracing import ModuleCall, Run
from utils.graph.values import Value

_NONE = torch.empty(0, dtype=torch.long)


@dataclass(frozen=True, eq=False)
class Ends:
    """Where a layer may pick and write: its alignment, and the labels of what is there.

    An aligned layer reads and writes some of these alone.
    """

    alignment: Alignment
    read: Tensor  # [C], of the channels of its input
    written: Tensor  # [W], of the channels of its output
    may_be_emptied: bool = False


def alignments(runs: Sequence[Run], modules: Mapping[str, nn.Module]) -> dict[str, Ends]:
    """Return the layers that read one input and give one output, of which no channel moves inside.

    All calls of such a module hold one conv, linear or norm and nothing else that matters.
    """
    found: dict[str, list[Ends | None]] = {}
    for run in runs:
        inside: dict[int, Ends] = {}
        for call in run.calls:
            place = _place(run, call, modules)
            if place is not None:
                inside[place[0]] = place[1]
        for number, relation in enumerate(run.relations):
            if isinstance(relation, Filters | Norm):
                found.setdefault(relation.module, []).append(inside.get(number))
        for call in run.calls:
            if is_emptied(module := modules[call.path]):
                (plane,) = call.gives.planes
                zeros = vector_along(plane, plane.dim() + module.alignment.gives)
                found.setdefault(call.path, []).append(Ends(module.alignment, _NONE, zeros))
    return {
        module: ends[0]
        for module, ends in found.items()
        if None not in ends and len({each.alignment for each in ends}) == 1
    }


def _place(run: Run, call: ModuleCall, modules: Mapping[str, nn.Module]) -> tuple[int, Ends] | None:
    """Return (the number of the call's relation, how it may be aligned), None if it may not."""
    if call.takes is None or call.gives is None:
        return None
    inside = range(call.relation, call.relation_stop)
    beside = [k for k in inside if isinstance(run.relations[k], Source | Tied)]
    rest = [k for k in inside if k not in beside]
    relation = run.relations[rest[0]] if len(rest) == 1 else None
    if not isinstance(relation, Filters | Norm) or relation.module != call.path:
        return None
    fixed = [run.relations[k].outputs for k in beside if isinstance(run.relations[k], Stays)]
    if fixed and bool(torch.isin(relation.inputs, torch.cat(fixed)).any()):
        return None
    picked, placed = places_of(modules[call.path])
    takes = _end(call.takes, relation.inputs, picked)
    gives = _end(call.gives, relation.outputs, placed)
    if takes is None or gives is None:
        return None
    alignment = Alignment(takes[0], gives[0], _is_bare_norm(run, call, rest[0]))
    shapes = call.takes.planes[0].shape, call.gives.planes[0].shape
    may_be_emptied = can_be_emptied(modules[call.path], alignment, *shapes)
    return rest[0], Ends(alignment, takes[1], gives[1], may_be_emptied)


def _is_bare_norm(run: Run, call: ModuleCall, number: int) -> bool:
    """True if the call does nothing but a layer or group norm, and moves its channels about."""
    known = ("layernorm", "groupnorm")
    inside = run.operations[call.start : call.stop]
    norms = [o for o in inside if o.made[0] <= number < o.made[1]]
    others = [o for o in inside if o not in norms and not o.moves and o.name not in COPIES]
    return not others and all(o.name in known for o in norms)


def _end(value: Value, labels: Tensor, places: Tensor | None) -> tuple[int, Tensor] | None:
    """Return (dim, all labels along it) of a value that holds `labels` at `places` along it."""
    found = axis_vector(value.planes[0]) if value.live and len(value.planes) == 1 else None
    if found is None:
        return None
    dim, every = found
    own = every if places is None else every[places]
    return (dim - value.planes[0].dim(), every) if torch.equal(own, labels) else None
