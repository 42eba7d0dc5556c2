"""Constants that masks leave behind, folded into the layers that read them.

Where a network's own code adds one number to all channels, a masked channel is that number, not
zero. A conv without zero padding, or a linear, makes one number of it in turn, which its bias takes
up, or the running mean of the batch norm behind it: then the channel can go. In train mode that
norm subtracts the number anyway. What is another number in train mode stays.
"""

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from utils.graph.channel_graph import ChannelGraph
from utils.graph.relations import FIRST_CHANNEL, Combined, Filters, Norm, Relation, Source, Tied
from utils.removal.constant_channels import ConstantRun, calls_reading, kernel_taps, why_unfoldable
from utils.removal.copies import copied


@torch.no_grad()
def foldable(masked: nn.Module, graph: ChannelGraph, alive: Tensor) -> Tensor:
    """Return the labels [K] of a masked network's constants that all layers reading them can take.

    Labels of the layers' weights for them are among these. `alive` are the channels that the masks
    do not make zero.
    """
    found = filled(graph, alive) & graph.needed(alive)
    if len(graph.runs) > 1 or not found.any():  # code of train mode alone reads other channels
        return found[:0].long()
    sinks = {id(r): _sink(masked, graph, r) for r in _readers(graph, found)}
    _leave_others(graph, found, {key for key, sink in sinks.items() if sink})
    if found.any():
        exact = copied(masked).cpu().double()
        try:
            runs = [ConstantRun(exact, graph, train=train) for train in (False, True)]
        except Exception:  # the network's own code, on random numbers
            return found[:0].long()
        for relation in _readers(graph, found):
            read, trained = (run.reads[id(relation)] for run in runs)
            same = (read - trained).abs() <= 1e-9 * read.abs() + 1e-12  # no NaN
            found[relation.inputs[~same]] = False
        _leave_others(graph, found, set(sinks))
    for relation in _readers(graph, found):
        found[relation.columns[found[relation.inputs]]] = True
    return found.nonzero().flatten()


@torch.no_grad()
def folds(
    masked: nn.Module, graph: ChannelGraph, keep: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """Return {bias or running mean of a masked network: float64 [C] to add}, for its constants.

    They are those with the labels [K] that layers do not read any more, if only the places in
    `keep` are left.
    """
    if not len(labels):
        return {}
    run = ConstantRun(copied(masked).cpu().double(), graph)
    gone = torch.zeros(graph.num_labels, dtype=torch.bool)
    gone[labels] = True
    found: dict[str, Tensor] = {}
    for relation in _readers(graph, gone):
        sink = _sink(masked, graph, relation)
        lost = gone[relation.inputs] & ~keep[relation.columns]
        if sink is None or not lost.any():
            continue
        constants = torch.where(lost, run.reads[id(relation)].nan_to_num(), 0.0)
        weights = kernel_taps(masked.get_submodule(relation.module)).cpu().double().sum(2)
        found[sink] = (weights @ constants) * (-1 if sink.endswith("running_mean") else 1)
    return found


def add_folds(
    model: nn.Module, graph: ChannelGraph, amounts: dict[str, Tensor], keep: Tensor
) -> None:
    """Add amounts of `folds` to a network that holds the places in `keep`, in place."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, amount in amounts.items():
        tensors[name].data += amount[keep[graph.parameters[name][0]]].to(tensors[name])


def filled(graph: ChannelGraph, alive: Tensor) -> Tensor:
    """Return bool [num_labels]: constants that the network's code makes of what masks zeroed."""
    filled = torch.zeros_like(alive)
    constant = ~alive
    constant[:FIRST_CHANNEL] = True
    for relation in graph.runs[0].relations:
        if isinstance(relation, Combined):
            dead = constant[relation.inputs] | torch.tensor(relation.parameters)
            made = relation.outputs[dead.all(1) & alive[relation.outputs]]
            filled[made] = constant[made] = True
    return filled


def _reads(relation: Relation, labels: Tensor) -> Tensor:
    """Return bool [C_out, ...]: which entries of what a relation reads are among the labels."""
    if isinstance(relation, Source | Tied):
        return labels[:0]
    return labels[relation.inputs]


def _readers(graph: ChannelGraph, labels: Tensor) -> list[Filters]:
    """Return the layers that read any of the labels, given as flags."""
    layers = (r for r in graph.runs[0].relations if isinstance(r, Filters))
    return [relation for relation in layers if _reads(relation, labels).any()]


def _leave_others(graph: ChannelGraph, found: Tensor, sinks: set[int]) -> None:
    """Lower the flags of constants that are read by others than sinks, or by what needs them."""
    before = -1
    while before != int(found.sum()):
        before = int(found.sum())
        for relation in graph.runs[0].relations:
            if id(relation) in sinks or not _reads(relation, found).any():
                continue
            if isinstance(relation, Combined):
                found[relation.inputs[~found[relation.outputs]]] = False
            else:
                found[relation.inputs] = False


def _sink(model: nn.Module, graph: ChannelGraph, layer: Filters) -> str | None:
    """Return the bias or running mean that takes up what a layer makes of constants, if any."""
    module = dict(model.named_modules()).get(layer.module)
    own = isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and "weight" in module._parameters
    if not own or layer.groups > 1 or why_unfoldable(module) or calls_reading(graph, layer) > 1:
        return None
    if module.bias is not None:
        name = f"{layer.module}.bias"
        return name if name in graph.parameters else None
    flags = torch.zeros(graph.num_labels, dtype=torch.bool)
    flags[layer.outputs] = True
    readers = [r for r in graph.runs[0].relations if _reads(r, flags).any()]
    if len(readers) != 1 or not isinstance(readers[0], Norm):
        return None
    (norm,) = readers
    kind = dict(model.named_modules()).get(norm.module)
    alone = isinstance(kind, _BatchNorm) and kind.running_mean is not None
    name = f"{norm.module}.running_mean"
    whole = torch.equal(norm.inputs, layer.outputs) and norm.groups == len(norm.inputs)
    fits = alone and whole and calls_reading(graph, norm) == 1 and name in graph.parameters
    return name if fits else None
