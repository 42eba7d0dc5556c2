"""Removal: a smaller network that computes what the masked one computes.

The result is of the user's own class: parameters and buffers get smaller, and layers whose channels
do not line up with those of their neighbours become aligned ones. Where the network's own code
cannot follow, places are kept, as zeros. Before it is returned, the smaller network has been held
against the masked one.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import product

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.aligned import align, align_norm, index_of, is_aligned, places_of
from utils.graph.attention import Heads
from utils.graph.channel_graph import ChannelGraph
from utils.graph.emptied import empty, is_emptied
from utils.graph.relations import Filters, Norm
from utils.removal.copies import copied
from utils.removal.folding import add_folds, filled, foldable, folds
from utils.removal.following import misfit
from utils.removal.law import first_difference
from utils.removal.masks import ChannelMasks
from utils.removal.misfits import Misfit, kept_to_follow
from utils.removal.record import ALIGN, NO_LABELS, Removal, note_removal

_TRIES = 200  # each keeps more places, so that some try fits


def remove_filters(
    model: nn.Module,
    graph: ChannelGraph,
    masks: Mapping[str, Tensor],
    *,
    align: str = "compact",
    check: bool = True,
) -> nn.Module:
    """Return a smaller copy of `model` without the masked filters; `model` stays as it is.

    The copy is of the model's class, with the same names in its state dict.

    Args:
        graph: the channel graph of `model`.
        masks: {module: bool [filters]}, True is kept; modules left out are kept whole. A layer may
            keep nothing where a sum goes on without it.
        align: how channels are left that do not line up: "compact" makes aligned layers (fewest
            parameters and MACs), "zeros" leaves zero filters in plain ones.
        check: hold the copy against the masked network, in float64, in eval and in train mode.

    Raises:
        ValueError: if a mask does not fit, or nothing of the input reaches the output; if the
            network cannot be copied; or if the copy does not compute what the masked network
            computes, or that cannot be checked, since the network does not run in train mode on the
            example.
    """
    emptied = [module for module, mask in masks.items() if not mask.any()]
    if emptied and not graph.reads_its_input(masks):
        raise ValueError(
            f"mask for {emptied[0]!r} keeps no filter, and nothing goes past it: "
            "expected at least one, or a sum that goes on without it"
        )
    return remove_channels(model, graph, masks, how=Removal(align), check=check)


@torch.no_grad()
def remove_channels(
    model: nn.Module,
    graph: ChannelGraph,
    masks: Mapping[str, Tensor],
    *,
    how: Removal | None = None,
    check: bool = True,
) -> nn.Module:
    """Do what `remove_filters` does for masks that may name norms and may keep nothing.

    An operation that is left without channels keeps one that is zero. `how` may say that of an
    earlier removal, which is then repeated; the network that comes back knows how it was made
    (`removals_of`).

    Raises:
        ValueError: as `remove_filters`.
    """
    how = how or Removal()
    if how.align not in ALIGN:
        raise ValueError(f"align is {how.align!r}: expected one of {', '.join(ALIGN)}")
    if check and graph.trains_not:
        raise ValueError(
            f"removal cannot be proven in train mode, where {graph.trains_not}; "
            "expected an example that it trains on, or check=False"
        )
    masked = masked_copy(model, graph, masks, how)
    if how.folded is None:
        alive = graph.alive(masks, unmasked=how.unmasked)
        how = replace(how, folded=foldable(masked, graph, alive))
    how, difference = replace(how, ways=dict(how.ways)), None
    for _ in range(_TRIES):
        keep, unused = places(graph, masks, how)
        slim = smaller(masked, graph, keep, unused)
        found: Misfit | None = misfit(slim, graph, keep)
        amounts = {} if found else folds(masked, graph, keep, how.folded)
        if found is None and check:
            exact = copied(slim).double() if amounts else slim  # not rounded yet
            add_folds(exact, graph, amounts, keep)
            difference = first_difference(masked, exact, graph)
            found = None if difference is None else difference.misfit(graph)
        if found is None:
            add_folds(slim, graph, amounts, keep)
            if masks:
                note_removal(slim, how)
            return slim
        if difference is not None and len(how.folded):
            how = replace(how, folded=NO_LABELS)
        elif not found.raised(how.ways, graph):
            break
    if difference is not None:
        raise ValueError(
            f"the smaller network differs from the masked one {difference}; nothing was changed"
        )
    raise ValueError(f"the network's code does not follow the channels that are left: {found}")


def masked_copy(
    model: nn.Module, graph: ChannelGraph, masks: Mapping[str, Tensor], how: Removal
) -> nn.Module:
    """Return a copy of the model with zeros for the masked filters."""
    masked = copied(model)
    ChannelMasks(masked, graph, masks, unmasked=how.unmasked).apply()
    return masked


def places_left(model: nn.Module, graph: ChannelGraph, masks: Mapping[str, Tensor]) -> Tensor:
    """Return bool [num_labels]: the places that `remove_filters` leaves, if all code follows."""
    alive = graph.alive(masks)
    if filled(graph, alive).any():
        alive[foldable(masked_copy(model, graph, masks, Removal()), graph, alive)] = False
    return graph.kept_of(alive)


def places(
    graph: ChannelGraph, masks: Mapping[str, Tensor], how: Removal
) -> tuple[Tensor, set[str]]:
    """Return bool [num_labels], the places that stay so that the operations can follow; and layers.

    These are to be emptied: no channel of theirs is used any more.
    """
    used = graph.used(masks, unmasked=how.unmasked, folded=how.folded)
    unused = _unused_layers(graph, used)
    plain = graph.alignable.keys() - unused if how.align == "zeros" else ()
    keep = graph.respread(used, (), plain=plain)
    while True:
        more = kept_to_follow(graph, keep, how.ways)
        more = [labels for labels in more if not keep[labels].all()]
        if not more:
            return keep, unused
        keep = graph.respread(keep, more, plain=plain)


def _unused_layers(graph: ChannelGraph, used: Tensor) -> set[str]:
    layers = [x for x in graph.relations if isinstance(x, Filters | Norm)]
    busy = {layer.module for layer in layers if used[layer.outputs].any()}
    ends = {layer.module: graph.alignable.get(layer.module) for layer in layers}
    return {name for name, at in ends.items() if name not in busy and at and at.may_be_emptied}


def add_biases(model: nn.Module, layers: Iterable[str]) -> list[str]:
    """Give the convs and linears a zero bias where they have none; return which had none."""
    bare = [name for name in layers if model.get_submodule(name).bias is None]
    for name in bare:
        module = model.get_submodule(name)
        filters = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        zeros = module.weight.detach().new_zeros(filters)
        module.bias = nn.Parameter(zeros, requires_grad=module.weight.requires_grad)
    return bare


def smaller(
    masked: nn.Module, graph: ChannelGraph, keep: Tensor, unused: Collection[str] = ()
) -> nn.Module:
    """Return a copy of a masked network with the places in `keep` alone, `unused` layers empty."""
    slim = copied(masked)
    tensors = {**dict(slim.named_parameters()), **dict(slim.named_buffers())}
    changed: dict[int, dict[int, int]] = {}
    for name, positions in graph.sizes(keep).items():
        tensor = tensors[name]
        sizes = changed.setdefault(id(tensor), {})
        small = tensor.detach()
        for dim, kept in enumerate(positions):
            if len(kept) < tensor.size(dim):
                sizes[tensor.size(dim)] = len(kept)
            small = small.index_select(dim, kept.to(small.device))
        tensor.data = small.contiguous(memory_format=_format(tensor))
        tensor.grad = None
    for path, module in slim.named_modules():
        owned = [*module._parameters.values(), *module._buffers.values()]
        sizes = {k: v for t in owned for k, v in changed.get(id(t), {}).items()}
        if sizes:
            _tell_sizes(slim.get_submodule(path.split(".parametrizations.")[0]), sizes)
    _tell_heads(slim, graph, keep)
    _align_layers(slim, graph, keep, unused)
    return slim


def _format(tensor: Tensor) -> torch.memory_format:
    """Return the memory format that a tensor has of the two."""
    last = tensor.dim() == 4 and not tensor.is_contiguous()
    last = last and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


_CHANNEL_WORDS = (
    "in_channels", "out_channels", "in_features", "out_features", "num_features", "num_channels",
    "channels", "num_parameters", "normalized_shape",
)  # fmt: skip


def _tell_sizes(module: nn.Module, sizes: Mapping[int, int]) -> None:
    """Let the numbers that a module says of itself follow its parameters."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvNd):
        rows, columns = weight.shape[:2]
        before = module.out_channels // module.groups
        if module.groups > 1:
            groups = columns and rows // before
            module.groups = max(1, groups)
        outer, inner = (columns, rows) if module.transposed else (rows, columns)
        module.out_channels = outer * (module.groups if module.transposed else 1)
        module.in_channels = inner * (1 if module.transposed else module.groups)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.GroupNorm):
        module.num_groups = len(weight) * module.num_groups // module.num_channels
        module.num_channels = len(weight)
    else:
        for word in _CHANNEL_WORDS:
            said = vars(module).get(word)
            if isinstance(said, int) and said in sizes:
                setattr(module, word, sizes[said])
            elif isinstance(said, tuple) and len(said) == 1 and said[0] in sizes:
                setattr(module, word, (sizes[said[0]],))


def _tell_heads(slim: nn.Module, graph: ChannelGraph, keep: Tensor) -> None:
    """Let the numbers that a module's code has of its heads, and of what they hold, follow.

    They are those of the module that multiplies, or of the one around it.
    """
    told: dict[tuple[str, str], int] = {}
    for relation in (relation for relation in graph.relations if isinstance(relation, Heads)):
        around = relation.module.rpartition(".")[0]
        for path, (wide, heads) in product((relation.module, around), relation.held()):
            for word, said in vars(slim.get_submodule(path)).items():
                labels = heads if "head" in word and "dim" not in word else wide
                if type(said) is int and said == len(labels):
                    number = int(keep[labels].sum())
                    told[path, word] = max(number, told.get((path, word), 0))
    for (path, word), number in told.items():
        setattr(slim.get_submodule(path), word, number)


def _align_layers(
    slim: nn.Module, graph: ChannelGraph, keep: Tensor, unused: Collection[str]
) -> None:
    for name, ends in graph.alignable.items():
        layer = slim.get_submodule(name)
        if name in unused or is_emptied(layer):
            empty(layer, ends.alignment, int(keep[ends.written].sum()))
            _let_it_be_called(slim, name)
    modules = [module for module in slim.modules() if not is_emptied(module)]
    busy = {id(p) for module in modules for p in module.parameters(recurse=False)}
    for name in unused:  # but for what another layer shares
        for parameter in slim.get_submodule(name).parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in busy)
    done = set(unused)
    for relation in graph.relations:
        if not isinstance(relation, Filters | Norm) or relation.module not in graph.alignable:
            continue
        if relation.module in done:
            continue
        done.add(relation.module)
        rows = keep[relation.rows[0]]
        reads = rows
        if isinstance(relation, Filters):
            reads = keep[relation.columns]
            if not len(reads):
                blocks = rows.reshape(relation.groups, -1).any(1, keepdim=True)
                reads = blocks.expand(-1, len(relation.inputs) // relation.groups).flatten()
        layer, ends = slim.get_submodule(relation.module), graph.alignable[relation.module]
        inputs, outputs = keep[ends.read], keep[ends.written]
        before = places_of(layer)
        picked = index_of(_among(inputs, before[0], reads), inputs)
        placed = index_of(_among(outputs, before[1], rows), outputs)
        parts = isinstance(relation, Norm) and _tears(rows, relation.groups)
        if parts or is_aligned(layer) or picked is not None or placed is not None:
            align(layer, ends.alignment, picked, placed, int(outputs.sum()))
            _let_it_be_called(slim, relation.module)
            if parts:
                align_norm(layer, inputs, relation.groups)


def _let_it_be_called(slim: nn.Module, name: str) -> None:
    """Keep torch's fused code, which does not call a layer but reads its weights, from its own."""
    owner = slim.get_submodule(name.rpartition(".")[0])
    if isinstance(owner, nn.TransformerEncoderLayer):
        owner.activation_relu_or_gelu = 0


def _among(every: Tensor, places: Tensor | None, flags: Tensor) -> Tensor:
    """Return flags [K] of an aligned layer's own channels as flags [C] of all that are there."""
    if places is None:
        return flags
    return torch.zeros_like(every).index_copy(0, places, flags)


def _tears(rows: Tensor, groups: int) -> bool:
    """True if some channels of a norm's group are left and some are not."""
    blocks = rows.reshape(groups, -1)
    return not torch.equal(blocks.any(1), blocks.all(1))
