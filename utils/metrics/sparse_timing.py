"""Whether zeros make a network faster: dense operators against torch.sparse, timed in turns."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.metrics.difference import check_equal
from utils.metrics.latency import FASTER, compare_latency
from utils.metrics.sparse_layers import sparse_layers, with_layers
from utils.runs.borrowed_state import evaluating

_TOLERANCE = 1e-4  # of the logits' scale: the same products, added up in another order


def sparse_report(model: nn.Module, batch: Tensor, repeats: int) -> dict[str, Any]:
    """Return the times of each layer that holds zeros, and of the network, dense and sparse.

    Times are 10th percentiles, since other work on the machine can only add to them. A layer counts
    as faster where the sparse one takes at most 95% of the dense one's. `networks_ms` has the
    network with no sparse layer, with all, and with those alone that are faster, if any.

    Raises:
        RuntimeError: dense and sparse logits differ by more than rounding; that would be our bug.
    """
    layers, sparse = [], sparse_layers(model)
    for name, received in _inputs(model, sparse, batch).items():
        layer = model.get_submodule(name)
        times = _times_ms({"dense": layer, "sparse": sparse[name]}, received, repeats)
        row = {"layer": name, "sparsity": _sparsity(layer.weight)}
        row |= {f"{state}_ms": time for state, time in times.items()}
        layers.append(row | {"faster": times["sparse"] <= FASTER * times["dense"]})
    networks = {"dense": model, "sparse": with_layers(model, sparse)}
    faster = {row["layer"]: sparse[row["layer"]] for row in layers if row["faster"]}
    if faster:
        networks["sparse_where_faster"] = with_layers(model, faster)
    return {
        "batch_size": len(batch),
        "threads": torch.get_num_threads(),
        "layers": layers,
        "networks_ms": _times_ms(networks, batch, repeats),
        "logits": _check(model, networks["sparse"], batch),
    }


def _inputs(model: nn.Module, layers: Collection[str], batch: Tensor) -> dict[str, Tensor]:
    """Return {layer: what it receives when `batch` passes}, without layers that it passes by."""
    found: dict[str, Tensor] = {}
    handles = []
    try:
        for name in layers:

            def keep(module, received, name=name):
                found.setdefault(name, received[0].clone())

            handles.append(model.get_submodule(name).register_forward_pre_hook(keep))
        with evaluating(model), torch.inference_mode():
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _sparsity(weight: Tensor) -> float:
    return 1 - int(weight.count_nonzero()) / weight.numel()


def _times_ms(modules: Mapping[str, nn.Module], example: Tensor, repeats: int) -> dict[str, float]:
    found = compare_latency(modules, example, repeats, warmup=2)
    return {name: latency.p10_ms for name, latency in found.items()}


def _check(dense: nn.Module, sparse: nn.Module, batch: Tensor) -> dict[str, float]:
    what = "dense and sparse logits"
    largest, scale = check_equal(dense, sparse, batch, tolerance=_TOLERANCE, what=what)
    return {"largest": largest, "scale": scale}
