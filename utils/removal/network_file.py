"""Network files: a pruned network as data, and how it becomes a network again.

A pruned file holds what the network was built by, the kept indices per layer, the state dict and
its provenance. Loading replays the surgery on the dense network; no code is unpickled. Where
filters that were zero already have been removed, a layer may keep nothing, norms may be listed
beside the convs, and `added_biases` names the convs that took a constant into a new bias.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph, trace_channels
from utils.graph.network import FORMS, Network
from utils.removal.surgery import add_biases, remove_channels
from utils.runs.atomic_write import write_tensors
from utils.runs.checkpoint import fill_model, load_file, state_dict_of, weights_of

FORMAT = "pruned network 1"
_OWN = ""  # the spec of a network that only its maker can build
_FIELDS = {
    "arch": str,
    "num_classes": int,
    "form": str,
    "kept": dict,
    "state_dict": dict,
    "provenance": dict,
}


def write_network(path: Path, network: Network) -> None:
    """Write a masked or removed network so that it can be made again, atomically."""
    content = _content(network.model, network.masks, spec=network.spec, form=network.form)
    content |= {
        "num_classes": network.num_classes,
        "provenance": dict(network.provenance),
        "added_biases": list(network.added_biases),
    }
    write_tensors(path, content)


def _content(
    model: nn.Module, masks: Mapping[str, Tensor], *, spec: str, form: str
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "arch": spec,
        "num_classes": 0,
        "form": form,
        "kept": {conv: mask.nonzero().flatten() for conv, mask in masks.items()},
        "state_dict": weights_of(model),
        "provenance": {},
        "added_biases": [],
    }


def is_pruned(content: Any) -> bool:
    """Return whether the content of a file is a pruned network's."""
    return isinstance(content, Mapping) and "kept" in content


def spec_of(content: Mapping[str, Any], path: str | Path) -> str:
    """Return what a pruned file says that its network was built by.

    Raises:
        ValueError: it is of another format, or its maker's own.
    """
    _check(content, path)
    if content["arch"] == _OWN:
        raise ValueError(f"{path} holds a network of its maker's own: expected load_removed's use")
    return content["arch"]


def pruned_network(content: Mapping[str, Any], dense: Network, path: str | Path) -> Network:
    """Replay what a pruned file says on its fresh `dense` network, and fill it.

    Raises:
        ValueError: the file does not fit the network.
    """
    if dense.num_classes != content["num_classes"]:
        raise ValueError(
            f"{path} says {content['num_classes']} classes: expected its classifier's "
            f"{dense.num_classes}"
        )
    model, masks, added = _replayed(content, dense.model, dense.graph, path)
    return replace(
        dense,
        model=model,
        form=content["form"],
        masks=masks,
        provenance=dict(content["provenance"]),
        added_biases=added,
    )


def write_removed(path: Path, removed: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Write a removed network of your own, made with `masks`; `load_removed` reads it."""
    write_tensors(path, _content(removed, masks, spec=_OWN, form="remove"))


def load_removed(path: str | Path, dense: nn.Module, example: Tensor) -> nn.Module:
    """Replay the removal that `write_removed` wrote on a fresh `dense` network, and fill it.

    Raises:
        ValueError: the file cannot be loaded, or does not fit the network.
    """
    content = load_file(path)
    if not is_pruned(content):
        raise ValueError(f"{path} is no pruned network: expected a file of write_removed")
    _check(content, path)
    model, _, _ = _replayed(content, dense, trace_channels(dense, example), path)
    return model


def _replayed(
    content: Mapping[str, Any], model: nn.Module, graph: ChannelGraph, path: str | Path
) -> tuple[nn.Module, dict[str, Tensor], tuple[str, ...]]:
    """Return (the network with the file's channels and weights, its masks, its added biases)."""
    masks = _masks(content["kept"], graph.widths(), path)
    added = _added_biases(content, graph, path)
    if add_biases(model, added):  # parameters, too
        graph = trace_channels(model, graph.example)
    if content["form"] == "remove":
        model = remove_channels(model, graph, masks, check=False)  # proven when it was written
    fill_model(model, state_dict_of(content, path), path)
    return model, masks, added


def _check(content: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a pruned file of another format, or whose fields are not what was written."""
    if content.get("format") != FORMAT:
        raise ValueError(f"{path} has format {content.get('format')!r}: expected {FORMAT!r}")
    for name, kind in _FIELDS.items():
        if not isinstance(content.get(name), kind):
            found = type(content.get(name)).__name__
            raise ValueError(f"{path}: {name!r} is of type {found}, expected {kind.__name__}")
    if content["form"] not in FORMS:
        raise ValueError(f"{path} has form {content['form']!r}: expected one of {', '.join(FORMS)}")


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
        type(indices) is Tensor
        and indices.layout == torch.strided
        and not indices.is_meta
        and indices.dtype == torch.int64
        and indices.dim() == 1
        and bool((indices.diff() > 0).all())
        and bool(((indices >= 0) & (indices < count)).all())
    )


def _added_biases(
    content: Mapping[str, Any], graph: ChannelGraph, path: str | Path
) -> tuple[str, ...]:
    layers = content.get("added_biases", [])  # files written before there were any lack it
    known = tuple(graph.filters())
    if not isinstance(layers, list) or any(layer not in known for layer in layers):
        raise ValueError(
            f"{path}: 'added_biases' is {layers!r}: expected names of convs and linears"
        )
    return tuple(layers)
