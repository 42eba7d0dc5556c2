"""Network files: a pruned network as data, and how any checkpoint becomes a network again.

A pruned file holds the architecture's name, the kept indices per conv, the state dict and its
provenance. Loading builds the dense network and replays the surgery; no code is unpickled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from models.channel_graph import ChannelGraph, trace_channels
from models.registry import architecture, build_model, example_images
from utils.pruning.surgery import remove_filters
from utils.runs.atomic_write import write_tensors
from utils.runs.checkpoint import fill_model, load_file, state_dict_of, weights_of

FORMAT = "pruned network 1"
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
    num_classes = _num_classes(state, arch)
    model = build_model(arch, num_classes)
    fill_model(model, state, path)
    return Network(model, arch, num_classes)


def _pruned(content: Mapping[str, Any], path: str | Path, arch: str | None) -> Network:
    _check(content, path)
    if arch not in (None, content["arch"]):
        raise ValueError(f"{path} holds a pruned {content['arch']}: expected {arch}")
    state = state_dict_of(content, path)
    num_classes = _num_classes(state, content["arch"])
    if num_classes != content["num_classes"]:
        raise ValueError(
            f"{path} says {content['num_classes']} classes: expected its classifier's {num_classes}"
        )
    dense = Network(build_model(content["arch"], num_classes), content["arch"], num_classes)
    graph = dense.trace()
    masks = _masks(content["kept"], graph.filters(), path)
    model = dense.model
    if content["form"] == "remove":
        model = remove_filters(model, graph, masks)
    fill_model(model, state, path)
    return Network(
        model,
        content["arch"],
        num_classes,
        content["form"],
        masks,
        dict(content["provenance"]),
    )


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
    kept: Mapping[str, Tensor], filters: Mapping[str, int], path: str | Path
) -> dict[str, Tensor]:
    masks = {}
    for conv, indices in kept.items():
        if conv not in filters:
            raise ValueError(f"{path} keeps filters of {conv!r}: the network has no such layer")
        count = filters[conv]
        if not _are_indices(indices, count):
            raise ValueError(
                f"{path}: kept indices of {conv!r} do not fit: "
                f"expected at least one, ascending, within [0, {count})"
            )
        masks[conv] = torch.zeros(count, dtype=torch.bool)
        masks[conv][indices] = True
    return masks


def _are_indices(indices: Any, count: int) -> bool:
    """True for int64 [K], K > 0, ascending without repeats, within [0, count)."""
    return (
        isinstance(indices, Tensor)
        and indices.dtype == torch.int64
        and indices.dim() == 1
        and len(indices) > 0
        and bool((indices.diff() > 0).all())
        and int(indices[0]) >= 0
        and int(indices[-1]) < count
    )


def _num_classes(state: Mapping[str, Tensor], arch: str) -> int:
    """Return the rows of the last matrix in the state dict: the classifier's classes."""
    matrices = [tensor for tensor in state.values() if tensor.dim() == 2]
    return matrices[-1].size(0) if matrices else architecture(arch).num_classes
