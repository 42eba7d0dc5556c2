"""What to keep where a smaller network's own code does not follow: more places, until it does."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.labels import narrowed, varying
from utils.graph.relations import FIRST_CHANNEL
from utils.graph.tracing import Operation, Run
from utils.removal.record import WHOLE, Places

_BEFORE = 8  # operations that are kept whole at once, before one that does not follow


@dataclass
class Misfit:
    """Operations that do not follow, or compute something else, and why.

    `alike` are those that the same code of other modules makes.
    """

    places: list[tuple[int, int]]
    reason: str
    alike: list[tuple[int, int]] = field(default_factory=list)

    def raised(self, ways: Places, graph: ChannelGraph) -> bool:
        """Try the next way at these operations, or the last at those before; False if none."""
        rest = [place for place in self.places if ways.get(place, 0) < WHOLE]
        if rest and len(self.places) > 1:
            ways.update(dict.fromkeys(rest, WHOLE))
        elif rest:
            (run, number) = rest[0]
            operation = graph.runs[run].operations[number]
            known = not operation.rigid and any(True for _ in _blocks(operation))
            way = ways.get(rest[0], 0) + 1 if known else WHOLE
            for place in (*rest, *self.alike):
                ways[place] = max(ways.get(place, 0), way)
        else:
            for run, first in (self.places[0], *(x for x in self.alike if x > self.places[0])):
                before = [(run, n) for n in reversed(range(first)) if ways.get((run, n), 0) < WHOLE]
                rest += before[:_BEFORE]
            ways.update(dict.fromkeys(rest, WHOLE))
        return bool(rest)

    def __str__(self) -> str:
        return self.reason


def alike(slim: nn.Module, run: Run, number: int, at: int) -> list[tuple[int, int]]:
    """Return the operations that other modules of the same class make at the same place.

    A layer's are those of the module with code of its own that it is in.
    """
    seen: Counter[str] = Counter()
    found: dict[Any, list[tuple[int, int]]] = {}
    for place, operation in enumerate(run.operations):
        owner, names = slim.get_submodule(operation.path), operation.path.split(".")
        inside = len(names)
        while inside and type(owner).__module__.startswith("torch.nn."):
            inside -= 1
            owner = slim.get_submodule(".".join(names[:inside]))
        kind = type(owner).__name__, *names[inside:]
        key = kind, operation.name, len(operation.gives), seen[operation.path]
        seen[operation.path] += 1
        found.setdefault(key, []).append((number, place))
    return next(places for places in found.values() if (number, at) in places)


def kept_to_follow(graph: ChannelGraph, keep: Tensor, ways: Places) -> list[Tensor]:
    """Return labels that must stay besides those in `keep`, so that the operations can follow."""
    found: list[Tensor] = []
    for (run, number), way in ways.items():
        operation = graph.runs[run].operations[number]
        if way >= WHOLE:
            values = [*operation.reads, *operation.gives, *operation.writes.values()]
            found += [narrowed(plane).flatten() for value in values for plane in value.planes]
            found += [] if operation.counts is None else [operation.counts]
            continue
        for block in _blocks(operation):
            there = keep[block] & (block >= FIRST_CHANNEL)
            if way == 1:
                found.append(_balanced(block, there))
            elif way == 2:
                found.append(block[:, there.any(0)].flatten())
            else:
                found.append(block[there.any(1)].flatten())
    return found


def _balanced(block: Tensor, there: Tensor) -> Tensor:
    """Return labels that give every row of the block as many as the fullest has."""
    counts = there.sum(1)
    lacking = int(counts.max()) - counts
    order = there.sort(dim=1, stable=True).indices  # absent ones first
    return torch.cat(
        [row[at[:n]] for row, at, n in zip(block, order, lacking.tolist(), strict=True)]
    )


def _blocks(operation: Operation) -> Iterator[Tensor]:
    """Yield matrices of labels whose rows must shrink alike: halves of a chunk, parts of a view."""
    reads = [v.planes[0] for v in operation.reads if v.live and v.planes]
    gives = [v.planes[0] for v in operation.gives if v.live and v.planes]
    vectors = [narrowed(p).flatten() for p in gives if len(varying(p)) == 1]
    if len(gives) > 1 and len(vectors) == len(gives) and len({len(v) for v in vectors}) == 1:
        yield torch.stack(vectors)
        return
    for plane in [*gives, *reads]:
        dims = varying(plane)
        if len(dims) == 2:
            at_first = [slice(None) if d in dims else 0 for d in range(plane.dim())]
            matrix = plane[tuple(at_first)]
            yield matrix if len(matrix) <= matrix.size(1) else matrix.t()
            return
    if len(reads) == 1 == len(vectors) and len(varying(reads[0])) == 1:
        whole, part = narrowed(reads[0]).flatten(), vectors[0]
        halves = whole.reshape(2, -1) if 2 * len(part) == len(whole) else whole[:0]
        if any(torch.equal(half, part) for half in halves):
            yield halves
