"""`python -m utils.benchmarks.rank_benchmark`: what ranking a network's feature maps costs.

Every way of `utils/benchmarks/rank_timing.py` on the same maps, with the forward pass beside it.
Each must find what torch.linalg.matrix_rank finds; `--million` takes images for 1,000,000 maps.
`--write` keeps the result beside this file and renews the tables on their page.
"""

import json
import os
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from utils.benchmarks.rank_timing import REFERENCE, Benchmark, Timing, benchmark, count_maps
from utils.commands.door import always, run
from utils.data.gpu_loader import batches
from utils.data.images import ImageSource, check_enough
from utils.graph.network import Network
from utils.options.data_options import DataOptions, NetworkOptions
from utils.options.devices import open_device
from utils.options.images import open_images
from utils.options.networks import open_prunable
from utils.paper.markdown import counted, portable, table
from utils.paper.pages import write_block
from utils.runs.atomic_write import write_json
from utils.runs.environment import environment
from utils.runs.options import option, refuse_below

MILLION = 1_000_000
MEASURED = Path(__file__).with_suffix(".json")  # {"ARCH, N images": result}


@dataclass(frozen=True)
class RankBenchmarkConfig(NetworkOptions, DataOptions):
    """Options of the benchmark."""

    num_images: int = option(60, "images whose maps are ranked", group="benchmark")
    million: bool = option(
        False, "as many images as 1,000,000 maps take, instead of --num_images", group="benchmark"
    )
    batch_size: int = option(20, "images per batch; its maps are in memory", group="benchmark")
    repeats: int = option(3, "times each way is timed; medians are shown", group="benchmark")
    loop_images: int = option(2, "images that the official loop ranks", group="benchmark")

    write: bool = option(False, "keep the result, renew its page", group="benchmark")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_below(self, 1, "num_images", "batch_size", "repeats")
        refuse_below(self, 0, "loop_images")


def rank_benchmark_command(config: RankBenchmarkConfig) -> dict[str, Any]:
    """Time all ways to rank the maps that a network's rank files are made of.

    Returns:
        For each way: seconds for all maps, times as fast as REFERENCE, mismatches. For each form
        of `map_ranks`: maps that were left to LAPACK. And the environment.

    Raises:
        ValueError: bad input.
    """
    device = open_device(config.device, config.gpu)
    network = open_prunable(config)
    model, sites = network.model.to(device), network.layers.sites()
    per_image = count_maps(model, sites, network.image)
    wanted = -(-MILLION // per_image) if config.million else config.num_images
    images = _images(config, network, device, wanted)
    loader = batches(images, config.batch_size, config.normalization, device=device)
    load_before = os.getloadavg()[0]
    found = benchmark(
        model,
        sites,
        (chosen for chosen, _ in loader),
        repeats=config.repeats,
        loop_images=config.loop_images,
    )
    result = {
        **network.named,
        "dataset": images.name,
        "images": found.images,
        "maps": found.maps,
        "repeats": config.repeats,
        "loop_images": config.loop_images,
        "forward_seconds": statistics.median(found.forward_seconds),
        "job_seconds": statistics.median(found.job_seconds),
        "ways": {name: _row(timing, found) for name, timing in found.timings.items()},
        "left_to_lapack": found.undecided,
        "load": [load_before, os.getloadavg()[0]],
        "environment": environment(device),
    }
    if config.write:
        kept = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
        kept[f"{network.spec}, {found.images} images"] = result
        write_json(MEASURED, kept)
        write_block("rank_benchmark", kept_text(kept.values()))
    return result


def kept_text(results: Iterable[Mapping[str, Any]]) -> str:
    """Return the tables of the results that are kept, each with its command."""
    parts = []
    for result in results:
        command = result["environment"]["command"].replace(".py", "", 1)
        parts += [rank_benchmark_text(result), f"    python -m utils.benchmarks.{command}"]
    return portable("\n\n".join(parts))


def _images(
    config: RankBenchmarkConfig, network: Network, device: torch.device, wanted: int
) -> ImageSource:
    data = open_images(config, network, device)
    check_enough(data.train, wanted, f"{wanted} images to rank on")
    return data.train.subset(range(wanted))


def _row(timing: Timing, found: Benchmark) -> dict[str, Any]:
    reference = found.timings[REFERENCE].microseconds_per_map
    return {
        "seconds": timing.microseconds_per_map * found.maps / 1e6,
        "times_as_fast": reference / timing.microseconds_per_map,
        "maps_timed": timing.maps,
        "mismatches": timing.mismatches,
    }


def rank_benchmark_text(result: dict[str, Any]) -> str:
    """Return the result of `rank_benchmark_command` as a Markdown table with its provenance."""
    rows = [
        (
            name,
            f"{row['seconds']:.2f} s",
            f"{row['times_as_fast']:.1f}",
            f"{row['mismatches']} of {row['maps_timed']:,}",
        )
        for name, row in sorted(result["ways"].items(), key=lambda item: -item[1]["seconds"])
    ]
    forward, job = result["forward_seconds"], result["job_seconds"]
    rows.append(("the forward pass alone", f"{forward:.2f} s", "", ""))
    whole = f"the whole job, forward pass and ranks: {job / forward:.1f} times the forward pass"
    rows.append((whole, f"{job:.2f} s", "", ""))
    left = ", ".join(
        f"{100 * count / result['maps']:.3f}% ({name})"
        for name, count in result["left_to_lapack"].items()
    )
    made, load = result["environment"], result["load"]
    header = ("way", "seconds", "times as fast", "other ranks")
    return (
        f"{table(header, rows)}\n\n{result['arch']} ({result['checkpoint'] or 'untrained'}), "
        f"{result['images']} images of {result['dataset']}, {result['maps']:,} maps; left to "
        f"LAPACK: {left}; medians of {result['repeats']} repeats (the loop: once, "
        f"{result['loop_images']} images, scaled); {made['device']}, "
        f"{counted(made['threads'], 'thread')}, load {load[0]:.1f} to {load[1]:.1f}; torch "
        f"{made['torch']}, commit {made['commit']}."
    )


def main(argv: Sequence[str]) -> int:
    """Run the benchmark and return the exit code."""
    return run(
        RankBenchmarkConfig,
        always(rank_benchmark_command, rank_benchmark_text),
        argv,
        prog="rank_benchmark",
        description=__doc__,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
