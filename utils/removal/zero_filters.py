"""Removal of filters that are zero already, whoever zeroed them, and of what they make constant.

A channel that is zero wherever it is read can go. A channel that is another constant can go if all
that reads it takes the constant into its bias (a conv without zero padding, a linear) or into its
running mean (a batch norm). What is left of the constants stays, and is told with the reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.utils import prune

from utils.graph.attention import Heads
from utils.graph.channel_graph import ChannelGraph, trace_channels
from utils.graph.relations import (
    FIRST_CHANNEL,
    Blocks,
    Combined,
    Filters,
    Norm,
    Output,
    Relation,
    Source,
    Summed,
    Tied,
)
from utils.removal.constant_channels import (
    ConstantRun,
    calls_reading,
    kernel_taps,
    reads_of,
    scales_of,
    why_unfoldable,
)
from utils.removal.copies import copied, dtypes_of, give_dtypes
from utils.removal.record import Removal
from utils.removal.surgery import add_biases, remove_channels
from utils.removal.zero_proof import prove


@dataclass(frozen=True)
class Staying:
    """A constant channel that a conv, linear or norm must still compute, and why."""

    module: str
    channel: int
    value: float
    reason: str


@dataclass(frozen=True)
class ZeroRemoval:
    """The smaller network, what makes it again out of the dense one, and what could not go.

    `masks` are those of `remove_channels`; the layers `added_biases` had no bias before; `kept` are
    the filters that each conv and linear still has. `trains_otherwise` says why the networks may
    differ in train mode, "" if it is proven that they do not.
    """

    model: nn.Module
    masks: dict[str, Tensor]
    kept: dict[str, list[int]]
    added_biases: tuple[str, ...]
    stays: tuple[Staying, ...]
    trains_otherwise: str = ""


def remove_zero_filters(model: nn.Module, example: Any, *, check: bool = True) -> ZeroRemoval:
    """Return a smaller copy of `model` without its constant channels; `model` stays as it is.

    In eval mode the copy computes what `model` computes. It does in train mode, too, where every
    channel that goes is the same constant there: a zero whose norm has no scale and shift either,
    a number that no batch norm or dropout has a part in. A batch norm by running statistics makes
    another number of a constant than by those of the batch: then only eval mode can be proven, and
    `trains_otherwise` says so.

    Args:
        model: may be pruned by torch.nn.utils.prune and not made permanent yet.
        example: one input, [N, C, H, W], or a tuple or dict of inputs.
        check: hold the copy against the model, in float64, in eval mode, and in train mode where
            the constants are the same.

    Raises:
        ValueError: if the network cannot be run on the example or copied, or if the copy does not
            compute what it computes.
    """
    model, dtypes = without_reparametrization(model), dtypes_of(model)
    model = model.double()  # constants are folded and compared before they are rounded
    graph = trace_channels(model, example)
    run = ConstantRun(copied(model).cpu(), graph)
    decision = _decide(graph, run, _shifts(graph, model))
    dense = copied(model)
    added = _fold(model, graph, decision)
    stays = tuple(_staying(graph, decision))
    grown = trace_channels(model, example) if added else graph  # the biases are parameters, too
    how = Removal(unmasked=_shifts(grown, model))
    slim = remove_channels(model, grown, decision.masks, how=how, check=False)
    otherwise = "it was not checked"
    if check:
        otherwise = prove(dense, slim, graph, run, decision.gone(graph), decision.dead)
    give_dtypes(slim, dtypes)
    positions = grown.kept_positions(grown.kept(decision.masks, unmasked=how.unmasked))
    kept = {layer: positions[layer][0].tolist() for layer in grown.filters()}
    return ZeroRemoval(slim, decision.masks, kept, added, stays, otherwise)


def without_reparametrization(model: nn.Module) -> nn.Module:
    """Return a copy whose pruned tensors are plain parameters: weight = weight_orig * weight_mask.

    That is `torch.nn.utils.prune.remove` everywhere; `model` stays as it is.
    """
    pruned = [
        (name, hook._tensor_name)
        for name, module in model.named_modules()
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, prune.BasePruningMethod)
    ]
    for name, tensor in pruned:  # the product is not a leaf, which copies refuse; it is made anew
        module = model.get_submodule(name)
        setattr(module, tensor, getattr(module, tensor).detach())
    model = copied(model)
    for name, tensor in pruned:
        prune.remove(model.get_submodule(name), tensor)
    return model


def _shifts(graph: ChannelGraph, model: nn.Module) -> Tensor:
    """Return the labels [K] of parameters that the network's code adds, where they are not zero."""
    added = [
        relation.inputs[:, list(relation.parameters)].flatten()
        for relation in graph.relations
        if isinstance(relation, Combined)
    ]
    other = torch.ones(graph.num_labels, dtype=torch.bool)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, vectors in graph.parameters.items():
        for dim, vector in enumerate(vectors):
            rest = tensors[name].detach().movedim(dim, 0).reshape(len(vector), -1)
            other[vector] = (rest != 0).any(1).cpu()
    labels = torch.cat([torch.empty(0, dtype=torch.long), *added]).unique()
    return labels[other[labels]]


@dataclass
class _Decision:
    """What became of every label, going from the output to the input."""

    run: ConstantRun
    wanted: Tensor  # bool [num_labels]: a reader needs the channel's own value
    relied: Tensor  # bool [num_labels]: a reader takes it to be zero, or has folded it
    unmasked: Tensor  # bool [num_labels]: a depthwise conv reads it, whose filter goes with it
    reasons: dict[int, str] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    dead: Tensor = torch.empty(0)  # bool [num_labels]: zero once these masks are applied

    def gone(self, graph: ChannelGraph) -> dict[int, Tensor]:
        """Return {id of a relation of eval mode: which inputs it reads that are left out}."""
        return {
            id(r): self.relied[r.inputs] & ~self.wanted[r.inputs] & _used(self, r)
            for r in graph.runs[0].relations
            if id(r) in self.run.reads
        }

    def folded(self, relation: Relation) -> Tensor:
        """Return float64 [C_in]: the constants to fold into the relation's module."""
        gone = ~self.wanted[relation.inputs] & (relation.inputs >= FIRST_CHANNEL)
        read = self.run.reads[id(relation)]
        return torch.where(gone & _used(self, relation) & ~read.isnan(), read, 0.0)


def _decide(graph: ChannelGraph, run: ConstantRun, shifts: Tensor) -> _Decision:
    """Decide which channels must keep their value.

    Removal makes zeros of filters and norms, not of what other operations compute: where such a
    result would have to vanish and does not, it stays, and all is decided again.
    """
    forced = torch.zeros(graph.num_labels, dtype=torch.bool)
    while True:
        none = torch.zeros_like(forced)
        decision = _Decision(run, forced.clone(), none.clone(), none)
        decision.wanted[1:FIRST_CHANNEL] = True
        for relation in reversed(graph.runs[0].relations):
            _want_inputs(decision, graph, relation)
        decision.masks = _masks(graph, decision.wanted)
        decision.dead = ~graph.alive(decision.masks, unmasked=shifts)
        stuck = decision.relied & ~decision.wanted & ~decision.dead
        if not stuck.any():
            return decision
        forced |= stuck


def _want_inputs(decision: _Decision, graph: ChannelGraph, relation: Relation) -> None:
    """Sort what the relation's wanted outputs read into wanted, zero and folded."""
    if isinstance(relation, Source | Tied):
        return
    if isinstance(relation, Output):
        decision.wanted[relation.inputs] = True
        for label in relation.inputs.tolist():
            decision.reasons.setdefault(label, "the network returns it")
        return
    used = _used(decision, relation)
    labels, values = relation.inputs[used], decision.run.reads[id(relation)][used]
    reason = _why_it_stays(decision, graph, relation)
    stays = values.isnan() | bool(reason) & (values != 0)
    if isinstance(relation, Filters) and relation.depthwise:
        stays |= True  # zero or not: without it the filter's bias would be missing
        decision.unmasked[labels] = True
        reason = reason or f"{relation.module} makes another constant of it, which stays"
    if isinstance(relation, Combined | Blocks | Summed):
        unmasked = _unmasked_inputs(decision, relation)[used]
        decision.unmasked[labels[unmasked]] = True
        stays |= unmasked
    decision.wanted[labels[stays]] = True
    decision.relied[labels[~stays]] = True
    for label in labels[stays & ~values.isnan()].tolist():
        decision.reasons.setdefault(label, reason)


def _unmasked_inputs(decision: _Decision, relation: Combined | Blocks | Summed) -> Tensor:
    """Return bool [C_out, operands]: which inputs must not be masked, so that no output is?"""
    unmasked = decision.unmasked[relation.outputs]
    if getattr(relation, "mode", "any") == "any":  # one operand that is not zero is enough
        unmasked = unmasked & ~(decision.run.reads[id(relation)] != 0).any(1)
    return unmasked[:, None].expand(relation.inputs.shape)


def _used(decision: _Decision, relation: Relation) -> Tensor:
    """Return bool, of the inputs' shape: which of them do the wanted outputs depend on?"""
    wanted = decision.wanted[relation.outputs]
    if isinstance(relation, Filters):
        module = decision.run.layer(relation)
        if module is None:
            return torch.ones_like(relation.inputs, dtype=torch.bool) & wanted.any()
        reads = reads_of(module) | relation.depthwise
        by_group = (reads & wanted[:, None]).reshape(relation.groups, -1, reads.size(1))
        return by_group.any(1).flatten()
    if isinstance(relation, Norm):
        module = decision.run.layer(relation)
        passed = wanted if module is None else wanted & scales_of(module, len(wanted))
        by_group = passed.reshape(relation.groups, -1).any(1, keepdim=True)
        return by_group.expand(-1, len(wanted) // relation.groups).flatten()
    used = wanted[:, None].repeat(1, relation.inputs.size(1))
    if isinstance(relation, Heads):
        used[:, 0] &= ~relation.weighs_zeros(decision.run.reads[id(relation)])
    return used


def _why_it_stays(decision: _Decision, graph: ChannelGraph, relation: Relation) -> str:
    """Return why the relation needs a constant other than zero itself, or "" where it folds it."""
    if isinstance(relation, Filters):
        module = decision.run.layer(relation)
        if module is None:
            return f"{relation.module} computes its weight"
        calls = calls_reading(graph, relation)
        if calls > 1:
            return f"{relation.module} is called {calls} times and has one bias"
        why = why_unfoldable(module)
        return why and f"{relation.module} {why}"
    if isinstance(relation, Norm):
        if relation.groups < len(relation.inputs):
            return f"{relation.module} normalizes several channels together"
        if calls_reading(graph, relation) > 1:
            return f"{relation.module} is called more than once"
        return "" if decision.run.layer(relation) else f"{relation.module} computes its scale"
    words = {
        "any": "adds it to others",
        "all": "multiplies others by it",
        "first": "divides with it",
        "never": "makes another constant of it, which stays",
    }
    if isinstance(relation, Combined):
        return f"{relation.node} {words[relation.mode]}"
    if isinstance(relation, Summed | Blocks):
        return f"{relation.node} adds it to others"
    return f"{relation.node} reads all channels together"


def _masks(graph: ChannelGraph, wanted: Tensor) -> dict[str, Tensor]:
    """Return masks {module: bool [channels]} of the layers that lose channels.

    A norm is named only where it keeps other channels than those that its input keeps.
    """
    masks: dict[str, Tensor] = {}
    relations = graph.runs[0].relations
    for relation in relations:
        if isinstance(relation, Filters) and relation.maskable:
            before = masks.get(relation.module, False)
            masks[relation.module] = before | wanted[relation.outputs]
    masks = {module: mask for module, mask in masks.items() if not mask.all()}
    alive = torch.zeros_like(wanted)
    alive[1:FIRST_CHANNEL] = True
    own: dict[str, Tensor] = {}  # of norms: what any of their calls must give
    for relation in relations:
        if isinstance(relation, Norm):
            own[relation.module] = own.get(relation.module, False) | wanted[relation.outputs]
    for relation in relations:
        relation.spread_alive(alive, masks)
        if not isinstance(relation, Norm) or relation.module in masks:
            continue
        if not torch.equal(alive[relation.outputs], own[relation.module]):
            masks[relation.module] = own[relation.module]
            alive[relation.rows] = False
            alive[relation.outputs] = False
            relation.spread_alive(alive, masks)
    return masks


@torch.no_grad()
def _fold(model: nn.Module, graph: ChannelGraph, decision: _Decision) -> tuple[str, ...]:
    """Fold the constants that go into biases and running means; return the biases added."""
    added: list[str] = []
    for relation in graph.runs[0].relations:
        if not isinstance(relation, Filters | Norm) or decision.run.layer(relation) is None:
            continue
        constants = decision.folded(relation)
        if not constants.any():
            continue
        module = model.get_submodule(relation.module)
        if isinstance(relation, Filters):
            added += add_biases(model, [relation.module])
            by_group = constants.reshape(relation.groups, -1)
            by_filter = by_group.repeat_interleave(len(relation.outputs) // relation.groups, 0)
            weights = kernel_taps(module).cpu().double().sum(2)
            module.bias += (weights * by_filter).sum(1).to(module.bias)
        elif getattr(module, "running_mean", None) is not None:  # else it subtracts them anyway
            module.running_mean -= constants.to(module.running_mean)
    return tuple(added)


def _staying(graph: ChannelGraph, decision: _Decision) -> Iterator[Staying]:
    """Yield the constants that filters and norms must still compute."""
    run = decision.run
    for relation in graph.runs[0].relations:
        if not isinstance(relation, Filters | Norm):
            continue
        stays = decision.wanted[relation.outputs] & ~run.emitted[relation.outputs].isnan()
        for channel in stays.nonzero().flatten().tolist():
            label = int(relation.outputs[channel])
            why = decision.reasons.get(label) or run.lost.get(label)
            why = why or f"{relation.module} is called more than once"
            yield Staying(relation.module, channel, float(run.emitted[label]), why)
