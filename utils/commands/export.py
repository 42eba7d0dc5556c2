"""`main.py export`: a network as .pt2 and .onnx files that run without this repository."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.export import ExportedProgram

from utils.data.gpu_loader import normalize
from utils.data.normalization import mean_and_deviation
from utils.graph.network import Network
from utils.metrics.cost import counts, physical_cost
from utils.metrics.export_check import check_file, logits_of
from utils.metrics.latency import FASTER, compare_latency, latencies
from utils.metrics.layer_shapes import uneven_depthwise
from utils.options.export_options import ExportConfig
from utils.options.images import open_images
from utils.options.networks import check_normalization, draw_like, open_network, results_of
from utils.reports.side_by_side import uneven_remark
from utils.runs.atomic_write import atomic_open
from utils.runs.choices import BEST_FORMATS
from utils.runs.environment import environment
from utils.runs.exported import FORMATS, export_program, pt2_bytes
from utils.runs.folded import ChannelsLast, norms_folded
from utils.runs.notes import note
from utils.training.recalibration import recalibrate

_CPU = torch.device("cpu")


class _Normalized(nn.Module):
    """A network that takes pixels in [0, 1] and normalizes them itself."""

    def __init__(self, network: nn.Module, normalization: str, channels: int):
        super().__init__()
        self.network = network
        of_channels = mean_and_deviation(normalization, channels)
        for name, values in zip(("mean", "deviation"), of_channels, strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None])  # [3, 1, 1]

    def forward(self, pixels: Tensor) -> Tensor:  # [N, 3, H, W]
        return self.network((pixels - self.mean) / self.deviation)


def export_command(config: ExportConfig) -> dict[str, Any]:
    """Write a network's files, each once it computes what the network does; return what they are.

    Raises:
        ValueError: bad input, or `format` asks for packages that are not installed.
    """
    formats, here = _formats(config), environment(_CPU)
    if config.gpu is not None:
        note(f"--gpu {config.gpu}: export computes on the CPU")
    network = open_network(config, config.tested())
    check_normalization(network, config.normalization)
    paths = {format: _path(config, network, format) for format in formats}
    dataset, classes, pixels = _pixels(config, network)
    model, example = network.model.eval(), network.example
    logits = logits_of(model, normalize(pixels, config.normalization))
    inside = config.with_normalization
    images = normalize(pixels, "none" if inside else config.normalization)
    channels = network.image_channels
    shipped = _Normalized(model, config.normalization, channels) if inside else model
    program, best = export_program(shipped, example), None
    if config.runtime == "eager":
        program, best = _fastest(program, images)
    facts = _facts(config, network, classes) | {"commit": here["commit"]}
    files, networks = [], {"network": shipped}
    for format, path in paths.items():
        content = FORMATS[format].write(program, facts)
        networks[format] = FORMATS[format].open(content)
        checked = check_file(networks[format], images, logits)
        with atomic_open(path) as file:
            file.write(content)
        files.append({"format": format, "path": str(path), "size_bytes": len(content), **checked})
    dense, checkpoint = draw_like(network, config.seed).model, network.checkpoint
    physical = {"dense": counts(physical_cost(dense, example))}
    physical["exported"] = counts(physical_cost(model, example))
    return {
        "command": "export",
        **network.named,
        "form": network.form,
        "size_bytes": None if checkpoint is None else checkpoint.stat().st_size,
        "physical": physical,
        "best": best,
        "remarks": _remarks(network, dense, physical, images),
        "files": files,
        "facts": facts,
        "dataset": dataset,
        "images": len(images),
        "batch_sizes": list(logits),
        "latency": latencies(networks, images),
        "environment": here,
    }


def _fastest(program: ExportedProgram, images: Tensor) -> tuple[ExportedProgram, dict[str, Any]]:
    """Return the program in the form that eager runs fastest, and the times of all forms."""
    example = images[:1]
    programs = {
        "as it is": program,
        "norms folded": export_program(norms_folded(program), example),
        "norms folded, channels last": export_program(ChannelsLast(norms_folded(program)), example),
    }
    opened = {name: FORMATS["pt2"].open(pt2_bytes(one, {})) for name, one in programs.items()}
    timed = compare_latency(opened, images, repeats=10, warmup=2)
    times = {name: latency.median_ms for name, latency in timed.items()}
    form = min(times, key=times.__getitem__)
    note("for eager: " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in times.items()))
    return programs[form], {"form": form, "latency_ms": times}


def _remarks(
    network: Network, dense: nn.Module, physical: Mapping[str, Any], images: Tensor
) -> list[str]:
    """Return sentences on what makes the network slower than it looks."""
    uneven = uneven_depthwise(network.model)
    said = [uneven_remark(network.spec, uneven)] if uneven else []
    if network.form != "remove" or physical["dense"] == physical["exported"]:
        return said
    recalibrate(dense, [images.repeat(2, 1, 1, 1)])  # drawn ones fade to slow, tiny numbers
    timed = latencies({"dense": dense, "pruned": network.model}, images)
    fewer = 1 - physical["exported"]["macs"] / physical["dense"]["macs"]
    times = [found["pruned"]["median_ms"] / found["dense"]["median_ms"] for found in timed.values()]
    if all(time > FASTER for time in times):
        said.append(
            f"Smaller but not faster on eager: {fewer:.1%} fewer MACs than the dense network, and "
            + " and ".join(f"{time:.2f}" for time in times)
            + " times as long on one image and on all; --align and --target_latency aim at time."
        )
    return said


def _formats(config: ExportConfig) -> list[str]:
    """Return the formats to write; where "all" cannot have one of them, say so.

    Raises:
        ValueError: the one that is asked for needs packages that are not installed.
    """
    wanted = config.format if config.runtime is None else BEST_FORMATS[config.runtime]
    if wanted != "all":
        if lack := _lack(wanted):
            raise ValueError(lack)
        return [wanted]
    lacks = {format: _lack(format) for format in FORMATS}
    for format, lack in lacks.items():
        if lack:
            note(f"no .{format} file: {lack}")
    return [format for format, lack in lacks.items() if not lack]


def _lack(format: str) -> str:
    """Return what is not installed for a format and how to get it, or "" where all is there."""
    missing = FORMATS[format].missing()
    how = f"expected `pip install {' '.join(FORMATS[format].packages)}` before"
    return f"--format {format} does not find {' and '.join(missing)}: {how}" if missing else ""


def _path(config: ExportConfig, network: Network, format: str) -> Path:
    """Return where the file of a format goes.

    Raises:
        ValueError: the checkpoint lies there.
    """
    checkpoint = network.checkpoint
    path = checkpoint or results_of(network) / "untrained.pt"
    if config.output is not None:
        is_file = config.output.suffix.removeprefix(".") in FORMATS
        path = config.output if is_file else config.output / path.name
    path = path.with_suffix(f".{format}")
    if checkpoint is not None and path.absolute() == checkpoint.absolute():
        raise ValueError(f"{path} is the checkpoint itself: expected another --output")
    return path


def _pixels(config: ExportConfig, network: Network) -> tuple[str, Sequence[str] | None, Tensor]:
    """Return the name of the images to check on, their classes if known, and uint8 [N, 3, S, S]."""
    count = config.eval_batch_size
    if config.random_images:
        generator = torch.Generator().manual_seed(config.seed)
        shape = (count, *network.example.shape[1:])
        return "noise", None, torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    images = open_images(config, network, _CPU)
    count = min(count, len(images.test))
    found = images.test.pixels(torch.arange(count), [slice(0, count)], device=_CPU, crops=None)
    return images.test.name, images.test.classes, next(iter(found))


def _facts(config: ExportConfig, network: Network, classes: Sequence[str] | None) -> dict[str, Any]:
    """Return what a file says of its network and of the images that it takes."""
    channels, (height, width) = network.image_channels, network.image_size
    mean, deviation = mean_and_deviation(config.normalization, channels)
    colors = "RGB" if channels == 3 else "gray"
    then = "" if config.with_normalization else ", less mean, divided by deviation"
    return {
        "arch": network.spec,
        "form": network.form,
        "input": f"float32 [N, {channels}, {height}, {width}], {colors} in [0, 1]{then}",
        "mean": mean,
        "deviation": deviation,
        "normalization": config.normalization,
        "num_classes": network.num_classes,
        "classes": classes,
        "checkpoint_sha256": network.checkpoint_sha256,
        "torch": torch.__version__,
    }
