"""Attention over several heads: a head is one channel, with all of its queries, keys and values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from utils.graph.counted import numbers_in
from utils.graph.labels import narrowed, varying, vector_along
from utils.graph.relations import Loose, Relation, Source, Whole, all_or_none, paired
from utils.graph.values import Value, live

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of dimensions that the code does not name
_NONE: Loose = {}


@dataclass(frozen=True, eq=False)
class Heads(Relation):
    """Output i belongs to one of the heads in `module`, and is made of row i of `inputs`.

    A row is of one factor or of two, half by half. If it is `weighted`, its first entry says how
    much the rest count: zeros stay zeros.
    """

    module: str
    inputs: Tensor  # [C_out, K]
    factors: int
    weighted: bool = False

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        alive[self.outputs] |= alive[self.inputs[:, 1:]].any(1) | (not self.weighted)

    def spread_present(self, present: Tensor, loose: Loose) -> None:
        all_or_none(self.inputs, self.outputs, present)

    def weighs_zeros(self, values: Tensor) -> Tensor:
        """Return bool [C_out]: of the inputs' values [C_out, K], is all that counts zero?"""
        return (values[:, 1:] == 0).all(1) & self.weighted

    def held(self) -> list[tuple[Tensor, Tensor]]:
        """Return the labels ([C], [H]) of what the heads have in all, and one of each head.

        That is of the queries and of the keys, of which there may be fewer, or of the values.
        """
        if self.weighted:
            return [(self.inputs[:, 1:].unique(), self.inputs[:, 0].unique())]
        factors = [rows.unique(dim=0) for rows in self.inputs.chunk(self.factors, 1)]
        return [(rows.unique(), rows[:, 0]) for rows in factors]

    def coupled(self, loose: Loose = _NONE) -> tuple[Tensor, Tensor]:
        return paired(torch.cat([self.outputs[:, None], self.inputs], 1))


@dataclass(frozen=True, eq=False)
class AsMany(Source):
    """The code takes as many of `given`, what heads gave, as there are of other channels."""

    given: Tensor  # [C]
    others: Tensor  # [C]

    def spread_present(self, present: Tensor, loose: Loose) -> None:
        more = int(present[self.given].sum() - present[self.others].sum())
        fewer = self.others if more > 0 else self.given
        present[fewer[~present[fewer]][: abs(more)]] = True


def note_counts(call: Any, moved: Sequence[Value]) -> None:
    """Note where a reshape gives what heads gave as many places as other channels have."""
    numbers = [n for n in numbers_in((call.args[1:], call.kwargs)) if getattr(n, "exact", False)]
    for plane in [value.planes[0] for value in moved if numbers]:
        for dim in varying(plane) if len(varying(plane)) == 1 else ():
            labels = vector_along(plane, dim)
            same = [number.labels for number in numbers if number == len(labels)]
            if same and _of_weighted_heads(call, labels):
                note_as_many(call.run, call.name, labels, same[0])


def _of_weighted_heads(call: Any, labels: Tensor) -> bool:
    """True if weighted heads gave all of the labels."""
    made = [r.outputs for r in call.run.run.relations if isinstance(r, Heads) and r.weighted]
    return bool(made) and bool(torch.isin(labels, torch.cat(made)).all())


def note_as_many(run: Any, name: str, given: Tensor, others: Tensor) -> None:
    """Note that the code takes as many of what heads gave as there are of other channels."""
    if not torch.isin(given, others).any():
        none = torch.empty(0, dtype=torch.long)
        run.run.relations.append(AsMany(run.node(name), none, given, others))


def note_width(run: Any, value: Value, start: int) -> None:
    """Note that self-attention, whose relations begin at `start`, gives as many as it reads."""
    if value.live and len(varying(value.planes[0])) == 1:
        others = vector_along(value.planes[0], *varying(value.planes[0]))
        for made in run.run.relations[start:]:
            if isinstance(made, Heads) and len(made.outputs) == len(others):
                note_as_many(run, "attention", made.outputs, others)


def mixed(call: Any, labels: Tensor, dim: int, *, in_heads: bool) -> Tensor:
    """Return labels of which all along `dim` are made into one, spread along it.

    What is of heads goes with the whole head.
    """
    rows = narrowed(labels).movedim(dim, -1)
    flat = rows.reshape(-1, rows.size(-1))
    made = {"module": call.run.sites.path, "factors": 1} if in_heads else {}
    kind = Heads if in_heads else Whole
    outputs = call.run.record(kind, call.run.node(call.name), len(flat), inputs=flat, **made)
    return outputs.reshape(rows.shape[:-1]).unsqueeze(dim).expand(labels.shape)


def lying(terms: Sequence[str], values: Sequence[Value]) -> list[list[str]]:
    """Return of each factor the letters of the dimensions along which its channels lie."""
    return [[x[d] for d in varying(v.planes[0])] for x, v in zip(terms, values, strict=True)]


def sizes_of(terms: Sequence[str], tensors: Sequence[Tensor]) -> dict[str, int]:
    """Return the sizes of the letters' dimensions; those of one place are spread over others."""
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, tensors, strict=True):
        sizes |= {x: max(n, sizes.get(x, 1)) for x, n in zip(term, tensor.shape, strict=True)}
    return sizes


def heads(call: Any, terms: Sequence[str], values: Sequence[Value]) -> Value | None:
    """Follow a product of two factors along whose heads channels lie, None if it is not one.

    `terms` are the letters of the dimensions of both factors and of the product. A factor with
    nothing but heads weighs the other's channels; else what both have in a head is mixed.
    """
    *terms, result = terms
    if not all(value.live for value in values):
        return None
    planes, lie = [value.planes[0] for value in values], lying(terms, values)
    head = [x for x in lie[0] if x in lie[1] and x in result]
    own = [[x for x in letters if x not in head] for letters in lie]
    if len(head) != 1 or not any(own):
        return None
    rows = [_rows(*each, head) for each in zip(planes, terms, own, strict=True)]
    kept: list[str] = []
    weighted = not all(own)
    if weighted:
        if own[0]:
            rows, own = rows[::-1], own[::-1]
        kept = [x for x in own[1] if x in result]
        if kept and kept != own[1]:
            return None
        if kept:  # every channel of a head on its own
            rows = [rows[0].expand_as(rows[1]).reshape(-1, 1), rows[1].reshape(-1, 1)]
    table, where = torch.cat(rows, 1).unique(dim=0, return_inverse=True)
    made = {"module": call.run.sites.path, "inputs": table, "factors": 2, "weighted": weighted}
    outputs = call.run.record(Heads, call.run.node(call.name), len(table), **made)
    sizes = sizes_of(terms, planes)
    lies = [*head, *kept]
    labels = outputs[where].reshape([sizes[x] for x in lies])
    labels = labels.permute([lies.index(x) for x in result if x in lies])
    labels = labels[tuple(slice(None) if x in lies else None for x in result)]
    return live(labels.expand([sizes[x] for x in result]))


def _rows(plane: Tensor, term: str, own: Sequence[str], head: Sequence[str]) -> Tensor:
    """Return the labels [heads, K] of a factor, those of its own letters in their order."""
    first = [term.index(x) for x in (*head, *own)]
    rest = [d for d in range(plane.dim()) if d not in first]
    small = narrowed(plane).permute(*first, *rest)
    return small.reshape(small.size(0), -1)
