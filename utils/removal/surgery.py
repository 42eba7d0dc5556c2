"""Removal: a smaller network that computes what the masked one computes.

Every value of the network keeps exactly the channels that are alive and needed. Where an operation
would receive other channels than it must (a residual sum of convs that kept different filters, a
zero-padded shortcut, a chunk whose halves shrank differently), a `ChannelGather` in front of it
picks them and fills dead ones with zeros. The law follows by construction.
"""

import copy
import operator
from collections.abc import Iterable, Mapping

import torch
import torch.fx as fx
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph
from utils.graph.relations import CONSTANT
from utils.removal.gather import ChannelGather, Gather, ScatterAdd
from utils.removal.masks import ChannelMasks
from utils.removal.realignment import Realignment, realign


def remove_filters(model: nn.Module, graph: ChannelGraph, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return a smaller copy of `model` without the masked filters; `model` stays as it is.

    The copy keeps the model's class where its `forward` still fits, else it is a
    torch.fx.GraphModule of the same submodules; state-dict names are the same either way. A network
    with convs, linears or norms that the trace does not call (auxiliary heads, which only training
    calls, and which read channels that are now gone) becomes a GraphModule without them, whose
    train mode returns what eval mode returns.

    Args:
        graph: the channel graph of `model`.
        masks: {module: bool [filters]}, True is kept; modules left out are kept whole.

    Raises:
        ValueError: if a mask does not fit, leaves a layer without filters, or an operation cannot
            be realigned to the channels that are left.
    """
    for module, mask in masks.items():
        if not mask.any():
            raise ValueError(f"mask for {module!r} keeps no filter: expected at least one")
    return remove_channels(model, graph, masks)


@torch.no_grad()
def remove_channels(
    model: nn.Module, graph: ChannelGraph, masks: Mapping[str, Tensor]
) -> nn.Module:
    """Do what `remove_filters` does for masks that may name norms and may keep nothing.

    An operation that is left without channels keeps one that is zero.

    Raises:
        ValueError: if a mask does not fit, or an operation cannot be realigned.
    """
    keep = graph.kept(masks)
    realignment = realign(graph, model, keep)
    slim = copy.deepcopy(model)
    ChannelMasks(slim, graph, masks).apply()  # some masked filters stay, as zeros
    for name, (outputs, inputs) in graph.kept_positions(keep).items():
        _shrink(slim.get_submodule(name), outputs, inputs)
    outgrown = not keep[CONSTANT:].all() and _has_uncalled(slim, graph)
    return _rewritten(slim, graph, realignment) if realignment or outgrown else slim


def _has_uncalled(model: nn.Module, graph: ChannelGraph) -> bool:
    called = {node.target for node in graph.graph.nodes if node.op == "call_module"}
    norms = nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm
    kinds = nn.modules.conv._ConvNd | nn.Linear | norms
    return any(isinstance(m, kinds) and name not in called for name, m in model.named_modules())


def add_biases(model: nn.Module, layers: Iterable[str]) -> list[str]:
    """Give the convs and linears a zero bias where they have none; return which had none."""
    bare = [name for name in layers if model.get_submodule(name).bias is None]
    for name in bare:
        module = model.get_submodule(name)
        filters = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        zeros = module.weight.detach().new_zeros(filters)
        module.bias = nn.Parameter(zeros, requires_grad=module.weight.requires_grad)
    return bare


def _shrink(module: nn.Module, outputs: Tensor, inputs: Tensor) -> None:
    """Cut the module's parameters and buffers down to the given positions, in place."""
    if isinstance(module, nn.modules.conv._ConvNd):
        _shrink_conv(module, outputs, inputs)
    elif isinstance(module, nn.Linear):
        _replace(module, "weight", module.weight[outputs][:, inputs])
        _replace(module, "bias", _rows(module.bias, outputs))
        module.out_features, module.in_features = len(outputs), len(inputs)
    else:
        _shrink_norm(module, outputs)


def _shrink_conv(conv: nn.modules.conv._ConvNd, outputs: Tensor, inputs: Tensor) -> None:
    weight = conv.weight.transpose(0, 1) if conv.transposed else conv.weight
    if conv.groups == 1:
        weight = weight[outputs][:, inputs]
        _replace(conv, "weight", weight.transpose(0, 1) if conv.transposed else weight)
    else:  # whole groups go: each has the same filters and reads the same number of channels
        kept = inputs if conv.transposed else outputs
        _replace(conv, "weight", conv.weight[kept])
        conv.groups = len(outputs) * conv.groups // conv.out_channels
    _replace(conv, "bias", _rows(conv.bias, outputs))
    conv.out_channels, conv.in_channels = len(outputs), len(inputs)


def _shrink_norm(norm: nn.Module, kept: Tensor) -> None:
    for name, tensor in [*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)]:
        if tensor.dim() == 1:
            _replace(norm, name, tensor[kept])
    if isinstance(norm, nn.GroupNorm):
        norm.num_groups = len(kept) * norm.num_groups // norm.num_channels
        norm.num_channels = len(kept)
    elif isinstance(norm, nn.LayerNorm):
        norm.normalized_shape = (len(kept),)
    else:
        norm.num_features = len(kept)


def _rows(tensor: Tensor | None, kept: Tensor) -> Tensor | None:
    return None if tensor is None else tensor[kept]


def _replace(module: nn.Module, name: str, tensor: Tensor | None) -> None:
    old = getattr(module, name)
    if old is None or tensor is None:
        return
    fresh = tensor.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(old, nn.Parameter):
        fresh = nn.Parameter(fresh, requires_grad=old.requires_grad)
    setattr(module, name, fresh)


def _rewritten(slim: nn.Module, graph: ChannelGraph, realignment: Realignment) -> fx.GraphModule:
    """Return `slim` as an fx module whose operations read through the realignment's gathers."""
    new, copies, made = fx.Graph(), {}, {}
    root = fx.GraphModule(slim, graph.graph)

    def value(gather: Gather | fx.Node) -> fx.Node:
        if isinstance(gather, fx.Node):
            return copies[gather]
        if gather not in made:
            name = f"gather_{len(made)}"
            root.add_submodule(name, ChannelGather(gather.index, gather.dim))
            made[gather] = new.call_module(name, tuple(copies[s] for s in gather.sources))
        return made[gather]

    for node in graph.graph.nodes:
        if node in realignment.replaced:
            copies[node] = value(realignment.replaced[node])
            continue
        gathers = {o: g for (n, o), g in realignment.operands.items() if n is node}
        if _adds_to_stream(node, gathers, graph):
            ((operand, gather),) = gathers.items()
            stream = node.args[1] if node.args[0] is operand else node.args[0]
            name = f"scatter_add_{node.name}"
            root.add_submodule(name, ScatterAdd(gather.index, gather.dim))
            sources = tuple(copies[n] for n in (stream, *gather.sources))
            copies[node] = new.call_module(name, sources)
            continue
        edits = {operand: value(gather) for operand, gather in gathers.items()}
        copies[node] = new.node_copy(node, lambda n, edits=edits: edits.get(n, copies[n]))
    _drop_unread(new, copies)
    return fx.GraphModule(root, new, class_name=type(slim).__name__)


def _adds_to_stream(node: fx.Node, gathers: Mapping[fx.Node, Gather], graph: ChannelGraph) -> bool:
    """True for a plain sum of two equal shapes of which one operand has to be gathered."""
    is_sum = node.target in (operator.add, operator.iadd, torch.add) and not node.kwargs
    shapes = {getattr(graph.labels.get(n), "shape", None) for n in node.all_input_nodes}
    return is_sum and len(gathers) == 1 and len(node.all_input_nodes) == 2 and len(shapes) == 1


def _drop_unread(graph: fx.Graph, copies: Mapping[fx.Node, fx.Node]) -> None:
    """Erase what only a replaced operation read; it may not fit the smaller tensors."""
    read_before = {copy for node, copy in copies.items() if node.users}
    for node in reversed(graph.nodes):
        if node in read_before and not node.users and node.op.startswith("call"):
            graph.erase_node(node)
