"""Network files: a pruned network as data, and how any checkpoint becomes a network again.

A pruned file holds the architecture's name, the kept indices per layer, the state dict and its
provenance. Loading builds the dense network and replays the surgery; no code is unpickled. Where
filters that were zero already have been removed, a layer may keep nothing, norms may be listed
beside the convs, and `added_biases` names the convs that took a constant into a new bias.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from models.registry import architecture, build_model, example_images
from utils.graph.channel_graph import ChannelGraph, trace_channels
from utils.removal.surgery import add_biases, remove_channels
from utils.runs.atomic_write import write_tensors
from utils.runs.checkpoint import fill_model, load_file, state_dict_of, weights_of

FORMAT = "pruned network 1"
_OWN = ""  # the architecture of a network that the registry does not know
FORMS = ("dense", "mask", "remove")
_FIELDS = {
    "arch": str,
    "num_classes": int,
    "form": str,
    "kept": dict,
    "state_dict": dict,
    "provenance": dict,
}


@dataclass
class Network:
    """A network out of a file: dense, masked (dense shapes, zeros inside) or removed (small)."""

    model: nn.Module
    arch: str
    num_classes: int
    form: str = "dense"  # one of FORMS
    masks: dict[str, Tensor] = field(default_factory=dict)  # {conv: bool [filters]}
    provenance: dict[str, Any] = field(default_factory=dict)
    added_biases: tuple[str, ...] = ()  # convs and linears with a bias that the architecture lacks

    def trace(self) -> ChannelGraph:
        """Return the channel graph of the model as it is."""
        return trace_channels(self.model, example_images(self.arch))


def write_network(path: Path, network: Network) -> None:
    """Write a masked or removed network so that `load_network` makes it again, atomically."""
    kept = {conv: mask.nonzero().flatten() for conv, mask in network.masks.items()}
    content = {
        "format": FORMAT,
        "arch": network.arch,
        "num_classes": network.num_classes,
        "form": network.form,
        "kept": kept,
        "state_dict": weights_of(network.model),
        "provenance": network.provenance,
        "added_biases": list(network.added_biases),
    }
    write_tensors(path, content)


def load_network(path: str | Path, arch: str | None = None) -> Network:
    """Load a dense checkpoint of `arch`, or a pruned file, which says its architecture itself.

    Raises:
        ValueError: the file cannot be loaded, is of another architecture, or does not fit; or it
            is a dense checkpoint and `arch` is None.
    """
    content = load_file(path)
    if isinstance(content, Mapping) and "kept" in content:
        return _pruned(content, path, arch)
    state = state_dict_of(content, path)
    if arch is None:
        raise ValueError(f"checkpoint {path} does not name its network: expected --arch")
    own_keys = architecture(arch).own_keys(state)
    state = {own_keys[key]: value for key, value in state.items()}
    num_classes = _num_classes(state, arch)
    model = build_model(arch, num_classes)
    fill_model(model, state, path)
    return Network(model, arch, num_classes)


def write_removed(path: Path, removed: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Write a removed network of your own, made with `masks`; `load_removed` reads it."""
    write_network(path, Network(removed, _OWN, 0, "remove", dict(masks)))


def load_removed(path: str | Path, dense: nn.Module, example: Tensor) -> nn.Module:
    """Replay the removal that `write_removed` wrote on a fresh `dense` network, and fill it.

    Raises:
        ValueError: the file cannot be loaded, or does not fit the network.
    """
    content = load_file(path)
    if not isinstance(content, Mapping) or "kept" not in content:
        raise ValueError(f"{path} is no pruned network: expected a file of write_removed")
    _check(content, path)
    model, _, _ = _replayed(content, dense, trace_channels(dense, example), path)
    return model


def _pruned(content: Mapping[str, Any], path: str | Path, arch: str | None) -> Network:
    _check(content, path)
    if content["arch"] == _OWN:
        raise ValueError(f"{path} holds a network of its maker's own: expected load_removed's use")
    if arch not in (None, content["arch"]):
        raise ValueError(f"{path} holds a pruned {content['arch']}: expected {arch}")
    num_classes = _num_classes(state_dict_of(content, path), content["arch"])
    if num_classes != content["num_classes"]:
        raise ValueError(
            f"{path} says {content['num_classes']} classes: expected its classifier's {num_classes}"
        )
    dense = Network(build_model(content["arch"], num_classes), content["arch"], num_classes)
    model, masks, added = _replayed(content, dense.model, dense.trace(), path)
    provenance = dict(content["provenance"])
    return Network(model, dense.arch, num_classes, content["form"], masks, provenance, added)


def _replayed(
    content: Mapping[str, Any], model: nn.Module, graph: ChannelGraph, path: str | Path
) -> tuple[nn.Module, dict[str, Tensor], tuple[str, ...]]:
    """Return (the network with the file's channels and weights, its masks, its added biases)."""
    masks = _masks(content["kept"], graph.widths(), path)
    added = _added_biases(content, graph, path)
    add_biases(model, added)
    if content["form"] == "remove":
        model = remove_channels(model, graph, masks)
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
        isinstance(indices, Tensor)
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


def _num_classes(state: Mapping[str, Tensor], arch: str) -> int:
    """Return the rows of the last matrix in the state dict: the classifier's classes."""
    matrices = [tensor for tensor in state.values() if tensor.dim() == 2]
    return matrices[-1].size(0) if matrices else architecture(arch).num_classes
