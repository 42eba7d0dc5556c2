"""Network files: a pruned network as data, and how it becomes a network again.

A pruned file holds what the network was built by, the kept indices per layer (of each removal, if
it was pruned more than once), how the removals were done, the state dict and its provenance.
Loading replays the surgery on the dense network; no code is unpickled. Where filters that were zero
already have been removed, a layer may keep nothing, norms may be listed beside the convs, and
`added_biases` names the convs that took a constant into a new bias.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph, trace_channels
from utils.graph.network import FORMS, Network
from utils.removal.record import NO_LABELS, Removal, are_whole_numbers, read_removal, removals_of
from utils.removal.surgery import add_biases, remove_channels
from utils.runs.atomic_write import write_tensors
from utils.runs.checkpoint import fill_model, load_file, state_dict_of, weights_of
from utils.runs.schema import OBJECT, TEXT, Kind, Nullable, Optional, check, one_of, whole

FORMAT, _EXPECTED = "pruned network 1", "a pruned network"
_OWN = ""  # the spec of a network that only its maker can build
_SCHEMA = {
    "format": one_of(FORMAT),
    "arch": TEXT,
    "num_classes": whole(0),
    "form": one_of(*FORMS),
    "kept": OBJECT,
    "state_dict": OBJECT,
    "provenance": OBJECT,
    "arch_args": Optional(TEXT),  # files written before there were any lack these
    "image_size": Optional(
        Nullable(([whole(1)], Kind("two numbers", lambda size: len(size) == 2)))
    ),
    "before": Optional([OBJECT]),
    "removals": Optional([OBJECT]),
    "added_biases": Optional([TEXT]),
}


@dataclass(frozen=True)
class BuiltBy:
    """A network's spec, its arguments as text, and its image size (None: its own)."""

    spec: str
    arguments: str = ""
    image_size: tuple[int, int] | None = None


def write_network(path: Path, network: Network) -> None:
    """Write a masked or removed network so that it can be made again, atomically."""
    before = network.before
    content = _content(network.model, network.masks, before, spec=network.spec, form=network.form)
    content |= {
        "arch_args": network.arguments,
        "image_size": list(network.image_size),
        "num_classes": network.num_classes,
        "before": [_kept(masks) for masks in before],
        "provenance": dict(network.provenance),
        "added_biases": list(network.added_biases),
    }
    write_tensors(path, content)


def _content(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    before: Sequence[Mapping[str, Tensor]] = (),
    *,
    spec: str,
    form: str,
) -> dict[str, Any]:
    count = sum(bool(each) for each in (*before, masks if form == "remove" else {}))
    known = removals_of(model)[-count:] if count else ()
    return {
        "format": FORMAT,
        "arch": spec,
        "num_classes": 0,
        "form": form,
        "kept": _kept(masks),
        "removals": [removal.data() for removal in known] if len(known) == count else [],
        "state_dict": weights_of(model),
        "provenance": {},
        "added_biases": [],
    }


def _kept(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {conv: mask.nonzero().flatten() for conv, mask in masks.items()}


def is_pruned(content: Any) -> bool:
    """Return whether the content of a file is a pruned network's."""
    return isinstance(content, Mapping) and "kept" in content


def built_by(content: Mapping[str, Any], path: str | Path) -> BuiltBy:
    """Return what a pruned file says that its network was built by; of `write_removed`, nothing.

    Raises:
        ValueError: it is of another format, or its fields are not what was written.
    """
    check(content, _SCHEMA, f"{path}", _EXPECTED)
    size = content.get("image_size")
    arguments = content.get("arch_args", "")
    return BuiltBy(content["arch"], arguments, None if size is None else tuple(size))


def pruned_network(content: Mapping[str, Any], dense: Network, path: str | Path) -> Network:
    """Replay what a pruned file says on its fresh `dense` network, and fill it.

    Raises:
        ValueError: the file does not fit the network.
    """
    if content["num_classes"] not in (0, dense.num_classes):
        raise ValueError(
            f"{path} says {content['num_classes']} classes: expected its classifier's "
            f"{dense.num_classes}"
        )
    before, model, masks, added = _replayed(content, dense.model, dense.example, path)
    return replace(
        dense,
        model=model,
        form=content["form"],
        masks=masks,
        before=before,
        provenance=dict(content["provenance"]),
        added_biases=added,
    )


def write_removed(
    path: Path, removed: nn.Module, masks: Mapping[str, Tensor], *, form: str = "remove"
) -> None:
    """Write a removed network of your own, made with `masks`; `load_removed` reads it."""
    write_tensors(path, _content(removed, masks, spec=_OWN, form=form))


def load_removed(path: str | Path, dense: nn.Module, example: Any) -> nn.Module:
    """Replay the removal that `write_removed` wrote on a fresh `dense` network, and fill it.

    Raises:
        ValueError: the file cannot be loaded, or does not fit the network.
    """
    content = load_file(path)
    if not is_pruned(content):
        raise ValueError(f"{path} is no pruned network: expected a file of write_removed")
    check(content, _SCHEMA, f"{path}", _EXPECTED)
    _, model, _, _ = _replayed(content, dense, example, path)
    return model


def pruned_before(
    dense: Network, before: Sequence[Mapping[str, Tensor]], like: nn.Module
) -> Network:
    """Return the network after earlier removals, done as those of `like`: the next one's start."""
    model, done = dense.model, iter(removals_of(like))
    for masks in before:
        how, graph = next(done, None) if masks else None, trace_channels(model, dense.example)
        model = remove_channels(model, graph, masks, how=how)
    return replace(dense, model=model, before=tuple(before))


def _replayed(
    content: Mapping[str, Any], model: nn.Module, example: Any, path: str | Path
) -> tuple[tuple[dict[str, Tensor], ...], nn.Module, dict[str, Tensor], tuple[str, ...]]:
    """Return (masks of earlier removals, the network in the file, its masks, added biases)."""
    graph = trace_channels(model, example)
    added = _added_biases(content, graph, path)
    if add_biases(model, added):  # parameters, too
        graph = trace_channels(model, example)
    before, removals = [], iter(content.get("removals", []))
    for kept in content.get("before", []):
        before.append(_masks(kept, graph.widths(), path))
        how = _how(before[-1], removals, graph, path)
        model = remove_channels(model, graph, before[-1], how=how, check=False)
        graph = trace_channels(model, example)
    masks = _masks(content["kept"], graph.widths(), path)
    if content["form"] == "remove":  # it was proven when it was written
        how = _how(masks, removals, graph, path)
        model = remove_channels(model, graph, masks, how=how, check=False)
    fill_model(model, state_dict_of(content, path), path)
    return tuple(before), model, masks, added


def _how(
    masks: Mapping[str, Tensor], removals: Iterator[Any], graph: ChannelGraph, path: str | Path
) -> Removal:
    """Return how the masked filters were removed, as ever if the file does not know."""
    data = next(removals, None) if masks else None
    return Removal(folded=NO_LABELS) if data is None else read_removal(data, graph, path)


def _masks(
    kept: Mapping[str, Tensor], widths: Mapping[str, int], path: str | Path
) -> dict[str, Tensor]:
    masks = {}
    for conv, indices in kept.items():
        if conv not in widths:
            raise ValueError(f"{path} keeps filters of {conv!r}: the network has no such layer")
        count = widths[conv]
        if not _are_indices(indices, count):
            raise ValueError(
                f"{path}: kept indices of {conv!r} do not fit: "
                f"expected ascending ones within [0, {count})"
            )
        masks[conv] = torch.zeros(count, dtype=torch.bool)
        masks[conv][indices] = True
    return masks


def _are_indices(indices: Any, count: int) -> bool:
    """True for int64 [K], ascending without repeats, within [0, count)."""
    return (
        are_whole_numbers(indices, (-1,))
        and bool((indices.diff() > 0).all())
        and bool((indices < count).all())
    )


def _added_biases(
    content: Mapping[str, Any], graph: ChannelGraph, path: str | Path
) -> tuple[str, ...]:
    layers, known = content.get("added_biases", []), graph.filters()
    if any(layer not in known for layer in layers):
        raise ValueError(
            f"{path}: 'added_biases' is {layers!r}: expected names of convs and linears"
        )
    return tuple(layers)
