"""Where the shrunken network must pick or zero-fill channels before an operation reads them.

Data movement is checked by running it: every element of every shrunken value gets the id of the
element of the full value that it stands for, the operation runs on the ids, and the result must
hold the ids it should. Where it does not (a chunk whose halves shrank differently, a zero pad of
fixed size), the operation is replaced by one gather from the values before it.
"""

from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
import torch
import torch.fx as fx
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.labels import axis_vector, is_tensors
from utils.graph.operations import MOVEMENTS, operation_name, run_movement
from utils.graph.relations import (
    ZERO,
    Blocks,
    Combined,
    Constants,
    Filters,
    Norm,
    Relation,
    Whole,
)
from utils.removal.gather import ChannelGather, Gather


@dataclass
class Realignment:
    """The gathers a shrunken network needs: before (node, operand), or instead of a node."""

    operands: dict[tuple[fx.Node, fx.Node], Gather] = field(default_factory=dict)
    replaced: dict[fx.Node, Gather | fx.Node] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.operands or self.replaced)


def realign(graph: ChannelGraph, model: nn.Module, keep: Tensor) -> Realignment:
    """Find every place where the network that keeps `keep` [num_labels] needs a gather.

    Raises:
        ValueError: naming the node, if the channels it must receive cannot be gathered.
    """
    walk = _Walk(graph, model, keep)
    for node in graph.graph.nodes:
        walk.visit(node)
    return walk.found


class _Walk:
    """Goes through the nodes in order, following the ids of elements through data movement."""

    def __init__(self, graph: ChannelGraph, model: nn.Module, keep: Tensor):
        self.graph, self.model, self.keep = graph, model, keep
        self.found = Realignment()
        self.relations = {r.node: r for r in graph.relations}
        self.kept_inputs = {m: inputs for m, (_, inputs) in graph.kept_positions(keep).items()}
        self.full: dict[fx.Node, Any] = {}  # ids of a value's elements, [2, ...] each
        self.small: dict[fx.Node, Any] = {}  # the ids that are left; None if it could not run
        self.first_ids: list[tuple[int, fx.Node | None]] = []
        self.present: dict[fx.Node, Tensor] = {}  # positions of values that keep some zeros
        self.stacked: dict[fx.Node, Tensor] = {}  # positions of stacked values
        self.next_id = 2  # 0 is a padded zero, 1 a padded constant

    def visit(self, node: fx.Node) -> None:
        if not is_tensors(self.graph.labels[node]) and node.op != "output":
            self._plain(node)
            return
        relation = self.relations.get(node.name)
        if isinstance(relation, Filters | Norm):
            module = self.model.get_submodule(relation.module)
            channels_last = isinstance(module, nn.Linear | nn.LayerNorm)
            dim = self.graph.labels[node].dim() - 1 if channels_last else 1
            self._want(node, node.all_input_nodes[0], dim, self.kept_inputs[relation.module])
        elif isinstance(relation, Whole) or node.op == "output":
            self._want_everything(node)
        elif isinstance(relation, Combined | Constants):
            self._elementwise(node)
        elif isinstance(relation, Blocks):
            wanted = relation.reads(self.keep).nonzero().flatten()
            self._want(node, node.all_input_nodes[0], 1, wanted)
        elif node.op.startswith("call") and operation_name(node, self.model) in MOVEMENTS:
            self._move(node)
        elif node.op.startswith("call") and self._irregular(node):
            self._carry(node)
        elif node.op.startswith("call") and node.all_input_nodes[0] in self.present:
            self.present[node] = self.present[node.all_input_nodes[0]]

    # --- what operations must receive ---

    def _want(self, node: fx.Node, operand: fx.Node, dim: int, wanted: Tensor) -> None:
        """Make `node` read exactly the `wanted` positions of the full operand along `dim`."""
        present = self._positions(operand, dim)
        if torch.equal(present, wanted):
            return
        place = torch.full((self.graph.labels[operand].size(dim),), -1)
        place[present] = torch.arange(len(present))
        index = tuple(place[wanted].tolist())
        self.found.operands[node, operand] = Gather((operand,), index, dim)

    def _want_everything(self, node: fx.Node) -> None:
        for operand in node.all_input_nodes:
            labels = self.graph.labels[operand]
            if isinstance(labels, Tensor) and axis_vector(labels) is not None:
                dim = axis_vector(labels)[0]
                self._want(node, operand, dim, torch.arange(labels.size(dim)))

    def _elementwise(self, node: fx.Node) -> None:
        labels = self.graph.labels[node]
        operands = [n for n in node.all_input_nodes if isinstance(self.graph.labels[n], Tensor)]
        if any(axis_vector(self.graph.labels[n]) is None for n in operands if n.op != "get_attr"):
            self._irregular_elementwise(node, operands)
            return
        dim = axis_vector(labels)[0]
        wanted = self._positions(node, dim)
        for operand in operands:
            own = self.graph.labels[operand]
            own_dim = own.dim() - (labels.dim() - dim)  # broadcasting aligns on the right
            if own_dim >= 0 and own.size(own_dim) > 1:
                self._want(node, operand, own_dim, wanted)

    def _irregular_elementwise(self, node: fx.Node, operands: list[fx.Node]) -> None:
        """Check a reduction over stacked values; their rows were aligned when they were stacked."""
        labels, source = self.graph.labels[node], operands[0]
        found = axis_vector(labels)
        if len(operands) > 1 or found is None or self._ids(source)[1] is None:
            raise self._error(node)
        full, small = self._ids(source)
        stacked = self.stacked.get(source, self._positions(node, found[0]))
        for dim in range(1, full.dim()):
            same_size = full.size(dim) == labels.size(found[0])
            if same_size and _matches(small, full.index_select(dim, stacked)):
                self.present[node] = stacked
                return
        raise self._error(node)

    # --- data movement ---

    def _move(self, node: fx.Node) -> None:
        labels = self.graph.labels[node]
        found = axis_vector(labels) if isinstance(labels, Tensor) else None
        if isinstance(labels, Tensor) and found is None:
            self._align_joined(node)
        full = run_movement(node, self.model, *self._arguments(node, 0))
        try:
            small = run_movement(node, self.model, *self._arguments(node, 1))
        except (RuntimeError, IndexError, TypeError, ValueError):
            small = None  # does not fit the shrunken value; what reads it must gather
        if found is None:
            self.full[node], self.small[node] = full, small
            return
        dim = found[0]
        if small is not None and torch.equal(small, full) and self._read_whole(node):
            self.present[node] = torch.arange(labels.size(dim))  # padded zeros included
            return
        wanted = full.index_select(dim, self._positions(node, dim))
        if small is not None and _matches(small, wanted):
            return
        present = self.present.get(node.all_input_nodes[0])
        fits = small is not None and present is not None and int(present.max()) < full.size(dim)
        if fits and _matches(small, full.index_select(dim, present)):
            self.present[node] = present  # zeros that were kept before it, moved in space
            return
        self.found.replaced[node] = self._gathered(node, wanted, dim)

    def _read_whole(self, node: fx.Node) -> bool:
        """True if the value holds padded zeros, and all that reads it keeps every position."""
        if not (self.graph.labels[node] == ZERO).any():
            return False
        return all(self._keeps_all(self.relations.get(user.name), user) for user in node.users)

    def _keeps_all(self, reader: Relation | None, node: fx.Node) -> bool:
        if isinstance(reader, Filters | Norm):
            return len(self.kept_inputs[reader.module]) == len(reader.inputs)
        return isinstance(reader, Combined) and bool(self.keep[self.graph.labels[node]].all())

    def _carry(self, node: fx.Node) -> None:
        """An elementwise function on a value whose channels do not lie along one dimension.

        Its result gets ids of its own, which belong to no value: a gather from before it would
        leave the function out.
        """
        source = node.all_input_nodes[0]
        full, small = self._ids(source)
        if source in self.stacked:
            self.stacked[node] = self.stacked[source]
        start, self.next_id = self.next_id, self.next_id + int(full.max()) + 1
        self.first_ids.append((start, None))
        self.full[node] = torch.where(full > 1, full + start, full)
        self.small[node] = None if small is None else torch.where(small > 1, small + start, small)

    def _align_joined(self, node: fx.Node) -> None:
        """Values stacked on one another keep the same positions: those that any of them keeps."""
        operands = [n for n in node.all_input_nodes if isinstance(self.graph.labels[n], Tensor)]
        axes = [axis_vector(self.graph.labels[n]) for n in operands]
        if len(operands) < 2 or any(a is None or a[0] != axes[0][0] for a in axes):
            return
        dim = axes[0][0]
        wanted = torch.cat([self._positions(n, dim) for n in operands]).unique()
        self.stacked[node] = wanted
        for operand in operands:
            self._want(node, operand, dim, wanted)

    def _gathered(self, node: fx.Node, wanted: Tensor, dim: int) -> Gather | fx.Node:
        """Return the gather that makes the `wanted` ids out of the nearest regular values."""
        channels = wanted.movedim(dim, 0).flatten(1)  # [C, rest]
        sources: list[fx.Node] = []
        picks: list[tuple[fx.Node, int] | None] = []
        for ids in channels:
            source, position = self._origin(int(ids[0]))
            if source is None and (ids > 0).any():
                raise self._error(node)
            picks.append(None if source is None else (source, position))
            if source is not None and source not in sources:
                sources.append(source)
        if not sources:  # nothing but zeros: any value before it gives their shape
            rest = wanted.narrow(dim, 0, 0).shape
            fitting = (n for _, n in reversed(self.first_ids) if n is not None)
            sources = [n for n in fitting if self._ids(n)[0].narrow(dim, 0, 0).shape == rest][:1]
        place, start = {}, 0
        for source in sources:
            self._check_same(node, source, channels, picks, dim)
            for i, position in enumerate(self._positions(source, dim).tolist()):
                place[source, position] = start + i
            start += len(self._positions(source, dim))
        index = tuple(-1 if pick is None else place.get(pick, -1) for pick in picks)
        if len(sources) == 1 and index == tuple(range(start)):
            return sources[0]
        return Gather(tuple(sources), index, dim)

    def _origin(self, element: int) -> tuple[fx.Node | None, int]:
        """Return the value an element id belongs to and the id's position along its channels."""
        if element < 2:
            return None, -1
        start, node = max(
            (pair for pair in self.first_ids if pair[0] <= element), key=itemgetter(0)
        )
        if node is None:
            return None, -1
        found = axis_vector(self.graph.labels[node])
        place = np.unravel_index(element - start, self.graph.labels[node].shape[1:])
        return node, int(place[found[0] - 1])

    def _check_same(
        self,
        node: fx.Node,
        source: fx.Node,
        channels: Tensor,
        picks: list[tuple[fx.Node, int] | None],
        dim: int,
    ) -> None:
        rows = [i for i, pick in enumerate(picks) if pick is not None and pick[0] is source]
        positions = torch.tensor([picks[i][1] for i in rows], dtype=torch.long)
        full = self._ids(source)[0]
        if full.dim() <= dim:
            raise self._error(node)
        expected = full.index_select(dim, positions).movedim(dim, 0).flatten(1)
        if not torch.equal(channels[rows], expected):
            raise self._error(node)

    # --- ids, positions, plain values ---

    def _ids(self, node: fx.Node) -> tuple[Any, Any]:
        """Return (ids of the full value, ids of the shrunken value)."""
        if node not in self.full:
            labels = self.graph.labels[node]
            found = axis_vector(labels)
            if found is None:
                raise self._error(node)
            count = labels[0].numel()
            ids = torch.arange(self.next_id, self.next_id + count).reshape(1, *labels.shape[1:])
            self.full[node] = ids.expand(labels.shape)
            self.small[node] = self.full[node].index_select(
                found[0], self._positions(node, found[0])
            )
            self.first_ids.append((self.next_id, node))
            self.next_id += count
        return self.full[node], self.small[node]

    def _arguments(self, node: fx.Node, which: int) -> tuple[Any, Any]:
        def value(source: fx.Node) -> Any:
            if not is_tensors(self.graph.labels[source]):
                return self.graph.labels[source] if which == 0 else self.small[source]
            ids = self._ids(source)[which]
            gather = self.found.operands.get((node, source))
            if which == 1 and gather is not None:
                return ChannelGather(gather.index, gather.dim)(ids)
            if ids is None:
                raise ValueError("a value before this one could not be made")
            return ids

        return fx.node.map_arg(node.args, value), fx.node.map_arg(node.kwargs, value)

    def _plain(self, node: fx.Node) -> None:
        """Work out a size or another number as it is in the shrunken network."""
        if not node.op.startswith("call"):
            self.small[node] = self.graph.labels[node]
            return
        try:
            args, kwargs = self._arguments(node, 1)
            if node.op == "call_method":
                self.small[node] = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            else:
                self.small[node] = node.target(*args, **kwargs)
        except (ValueError, RuntimeError):
            self.small[node] = self.graph.labels[node]

    def _positions(self, node: fx.Node, dim: int) -> Tensor:
        """Return the positions along `dim` that the shrunken value keeps."""
        if node in self.present:
            return self.present[node]
        labels = self.graph.labels[node]
        vector = labels[tuple(slice(None) if d == dim else 0 for d in range(labels.dim()))]
        return self.keep[vector].nonzero().flatten()

    def _irregular(self, node: fx.Node) -> bool:
        labels = self.graph.labels[node]
        return isinstance(labels, Tensor) and axis_vector(labels) is None

    def _error(self, node: fx.Node) -> ValueError:
        name = operation_name(node, self.model)
        return ValueError(f"node {node.name!r} ({name}): cannot realign the channels that are left")


def _matches(small: Tensor, wanted: Tensor) -> bool:
    """True if the ids agree; a zero that was filled in stands for a dead channel."""
    return small.shape == wanted.shape and bool(((small == wanted) | (small == 0)).all())
