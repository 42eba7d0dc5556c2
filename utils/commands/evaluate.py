"""`main.py evaluate`: what a checkpoint, dense or pruned, gets right, and what it costs."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch.nn as nn
from torch import Tensor

from utils.data.images import ImageSource
from utils.graph.network import Network
from utils.metrics.accuracy import measure_accuracy
from utils.metrics.cost import counts, physical_cost
from utils.metrics.latency import compare_latency, using_threads
from utils.metrics.latency_table import find_block, padded_macs
from utils.metrics.layer_shapes import layer_shapes, uneven_depthwise
from utils.metrics.memory import allocated_bytes, peak_activation_bytes
from utils.metrics.runtimes import runtime_of
from utils.metrics.size import parameter_size
from utils.metrics.sparse_timing import sparse_report
from utils.metrics.sparsity import total_zeros, zero_filters, zero_values
from utils.options.devices import open_device
from utils.options.evaluate_options import EvaluateConfig, checkpoint_in
from utils.options.images import Images, open_images
from utils.options.networks import check_normalization, load_network, open_network
from utils.options.prune_options import PruneConfig
from utils.reports.side_by_side import ratios, remarks
from utils.runs.environment import environment
from utils.runs.options import shared_options


def evaluate_command(config: EvaluateConfig) -> dict[str, Any]:
    """Measure a network, and with `against` a second one beside it; return what was found.

    Raises:
        ValueError: bad input.
    """
    device = open_device(config.device, config.gpu)
    tested = _open_tested(config)
    images = open_images(config, tested[0], device)
    chosen = images.test if config.split == "test" else images.train
    for one in tested:
        one.model.to(device)
    latencies = _latencies([one.model for one in tested], images.first_batch(chosen)[:1], config)
    found = [
        _measured(one, images, chosen, config)
        | {"latency_ms": latency[0]["median_ms"], "latency": latency}
        for one, latency in zip(tested, latencies, strict=True)
    ]
    if config.against and device.type == "cpu":
        _add_padded_macs(found, [one.model for one in tested], images.first_batch(chosen)[:1])
    return {
        "command": "evaluate",
        **found[0],
        "dataset": chosen.name,
        "normalization": config.normalization,
        **({"against": found[1], "ratios": ratios(*found)} if config.against else {}),
        "remarks": remarks(*found),
        "environment": environment(device),
    }


def test_only_command(config: PruneConfig) -> dict[str, Any]:
    """Return what `evaluate` finds out with the same options."""
    return evaluate_command(EvaluateConfig(**shared_options(EvaluateConfig, config)))


def _open_tested(config: EvaluateConfig) -> list[Network]:
    """Return the network to measure, and behind it the one to measure it against, if any.

    Raises:
        ValueError: one cannot be loaded, or they do not read the same images.
    """
    first = open_network(config, config.tested())
    check_normalization(first, config.normalization)
    if config.against is None:
        return [first]
    path = checkpoint_in("--against", config.against)
    arch = config.against_arch or first.spec
    arguments = first.arguments if arch == first.spec else ""
    other = load_network(path, arch, arguments=arguments, image_size=first.image_size)
    check_normalization(other, config.normalization)
    (told, size), (classes, wanted) = (
        (x.num_classes, " x ".join(map(str, x.image_size))) for x in (other, first)
    )
    if (told, size) != (classes, wanted):
        raise ValueError(
            f"--against {path} tells {told} classes of {size} images apart: expected {classes} of "
            f"{wanted}, as the first network does"
        )
    return [first, other]


def _measured(
    network: Network, images: Images, chosen: ImageSource, config: EvaluateConfig
) -> dict[str, Any]:
    """Return all that is measured of one network but its latency, as plain JSON values."""
    model, path = network.model, network.checkpoint
    accuracy = measure_accuracy(model, images.evaluation_batches(chosen))
    cost = physical_cost(model, network.image)
    values, filters = zero_values(model), zero_filters(model)
    found = {
        **network.named,
        "form": network.form,
        **accuracy.as_dict(),
        **counts(cost),
        "uncounted": list(cost.uncounted),
        "size_bytes": None if path is None else path.stat().st_size,
        "sizes": [asdict(parameter_size(model, bits)) for bits in config.bits],
        "zero_values": total_zeros(values),
        "zero_filters": total_zeros(filters),
        "uneven_depthwise": uneven_depthwise(model),
        "memory": _memory(model, images.first_batch(chosen)[:1], config),
    }
    if config.layers:
        found["layers"] = [asdict(layer) for layer in cost.layers]
        found["zeros_per_tensor"] = [asdict(row) for row in values]
        found["zero_filters_per_conv"] = [asdict(row) for row in filters]
    if config.sparse:
        found["sparse"] = _sparse(model, images.first_batch(chosen)[:1], config)
    return found


def _add_padded_macs(
    found: Sequence[dict[str, Any]], models: Sequence[nn.Module], image: Tensor
) -> None:
    """Say of each network how many MACs it does in full blocks of the runtime, which is timed."""
    shapes = [layer_shapes(model, image) for model in models]
    first = found[0]["latency"][0]
    wide = max(shapes, key=lambda of_model: sum(shape.macs for shape in of_model.values()))
    block = find_block(runtime_of(first["runtime"]), wide.values(), first["batch_size"])
    for one, of_model in zip(found, shapes, strict=True):
        one |= {"block": block, "padded_macs": padded_macs(of_model, block)}


def _memory(model: nn.Module, image: Tensor, config: EvaluateConfig) -> list[dict[str, Any]]:
    """Return the memory that activations need, at every batch size."""
    found = []
    for batch_size in config.batch_sizes:
        batch = _repeated(image, batch_size)
        peak, allocated = peak_activation_bytes(model, batch), allocated_bytes(model, batch)
        found.append({"batch_size": batch_size, "peak_bytes": peak, "allocated_bytes": allocated})
    return found


def _latencies(
    models: Sequence[nn.Module], image: Tensor, config: EvaluateConfig
) -> list[list[dict[str, Any]]]:
    """Return the latencies of each model, timed in turns, at every number of threads and images."""
    found: list[list[dict[str, Any]]] = [[] for _ in models]
    for threads, batch_size in itertools.product(config.threads or (None,), config.batch_sizes):
        timed = {str(number): model for number, model in enumerate(models)}
        with using_threads(threads):
            batch, how = _repeated(image, batch_size), {"warmup": 3, "runtime": config.runtime}
            times = compare_latency(timed, batch, config.repeats, **how)
        for rows, latency in zip(found, times.values(), strict=True):
            speed = {
                "repeats": config.repeats,
                "images_per_second": latency.images_per_second,
            }
            rows.append(asdict(latency) | speed)
    return found


def _sparse(model: nn.Module, image: Tensor, config: EvaluateConfig) -> list[dict[str, Any]]:
    """Return what torch.sparse makes of the zeros, at every number of threads and images."""
    found = []
    for threads, batch_size in itertools.product(config.threads or (None,), config.batch_sizes):
        with using_threads(threads):
            found.append(sparse_report(model, _repeated(image, batch_size), config.repeats))
    return found


def _repeated(image: Tensor, batch_size: int) -> Tensor:
    """Return a batch of `image` [1, C, H, W] over and over."""
    return image.expand(batch_size, -1, -1, -1).contiguous()
