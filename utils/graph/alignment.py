"""Layers that may be aligned: they can pick from their input, and write into a wider output."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from utils.graph.labels import axis_vector
from utils.graph.operations import COPIES
from utils.graph.relations import Filters, Norm, Stays, Tied, Unmasked
from utils.graph.tracing import ModuleCall, Run
from utils.graph.values import Value


@dataclass(frozen=True)
class Alignment:
    """Where the channels of a layer's input and output lie; from the end, so negative.

    A `norm` computes a layer or group norm and nothing else: it can leave zeros out of its input.
    """

    takes: int
    gives: int
    norm: bool = False


def alignments(runs: Sequence[Run]) -> dict[str, Alignment]:
    """Return the layers that read one input and give one output, of which no channel moves inside.

    All calls of such a module hold one conv, linear or norm and nothing else that matters.
    """
    found: dict[str, set[Alignment | None]] = {}
    for run in runs:
        inside: dict[int, Alignment] = {}
        for call in run.calls:
            place = _place(run, call)
            if place is not None:
                inside[place[0]] = place[1]
        for number, relation in enumerate(run.relations):
            if isinstance(relation, Filters | Norm):
                found.setdefault(relation.module, set()).add(inside.get(number))
    return {
        module: next(iter(places))
        for module, places in found.items()
        if len(places) == 1 and None not in places
    }


def _place(run: Run, call: ModuleCall) -> tuple[int, Alignment] | None:
    """Return (the number of the call's relation, how it may be aligned), None if it may not."""
    if call.takes is None or call.gives is None:
        return None
    inside = range(call.relation, call.relation_stop)
    beside = [k for k in inside if isinstance(run.relations[k], Stays | Unmasked | Tied)]
    rest = [k for k in inside if k not in beside]
    relation = run.relations[rest[0]] if len(rest) == 1 else None
    if not isinstance(relation, Filters | Norm) or relation.module != call.path:
        return None
    fixed = [run.relations[k].outputs for k in beside if isinstance(run.relations[k], Stays)]
    if fixed and bool(torch.isin(relation.inputs, torch.cat(fixed)).any()):
        return None
    takes = _dim_of(call.takes, relation.inputs)
    gives = _dim_of(call.gives, relation.outputs)
    if takes is None or gives is None:
        return None
    return rest[0], Alignment(takes, gives, _is_bare_norm(run, call, rest[0]))


def _is_bare_norm(run: Run, call: ModuleCall, number: int) -> bool:
    """True if the call does nothing but a layer or group norm, and moves its channels about."""
    known = ("layernorm", "groupnorm")
    inside = run.operations[call.start : call.stop]
    norms = [o for o in inside if o.made[0] <= number < o.made[1]]
    others = [o for o in inside if o not in norms and not o.moves and o.name not in COPIES]
    return not others and all(o.name in known for o in norms)


def _dim_of(value: Value, labels: torch.Tensor) -> int | None:
    found = axis_vector(value.planes[0]) if value.live and len(value.planes) == 1 else None
    if found is None or not torch.equal(found[1], labels):
        return None
    return found[0] - value.planes[0].dim()
