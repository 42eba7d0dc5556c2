"""The latency benchmark: what targets in time reach, and who is better at the same time.

`python -m utils.benchmarks.latency [--write] [options]` measures and prints two tables: what half
of the latency takes on each runtime, and, on one of them, our networks beside those of other
methods that take the same time. `--write` stores the numbers beside this file and renews the page.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from utils.benchmarks.latency_contest import (
    Knob,
    Prunable,
    at_share,
    by_macs,
    by_time,
    torch_pruning,
)
from utils.commands.door import always, run
from utils.metrics.accuracy import measure_accuracy
from utils.metrics.cost import counts, physical_cost
from utils.metrics.runtimes import RUNTIMES
from utils.options.data_options import DataOptions
from utils.options.images import Images, open_images
from utils.options.networks import draw_network, load_network
from utils.paper.markdown import counted, millions, table
from utils.paper.pages import write_block
from utils.planning.budget import full_ranks
from utils.planning.plan import score_layers
from utils.planning.time_target import Timing
from utils.runs.atomic_write import write_text
from utils.runs.environment import environment
from utils.runs.notes import note
from utils.runs.options import option
from utils.training.recalibration import recalibrate

MEASURED = Path(__file__).with_suffix(".json")
NETWORKS = {  # images of the larger batch
    "resnet_56": 32,
    "torchvision:resnet50": 8,
    "torchvision:mobilenet_v2": 32,
}
_SPEED = ("network", "runtime", "batch", "threads", "dense", "time left", "L", "MACs", "L by MACs")
_SPEED += ("block", "sum of layers", "seconds")
_CONTEST = ("network", "how", "time left", "MACs", "parameters", "right, recalibrated")


@dataclass(frozen=True)
class LatencyConfig(DataOptions):
    """Options of the benchmark."""

    resume: Path | None = option(
        None, "weights of the ResNet-56; none: drawn by --seed", metavar="CKPT", group="measuring"
    )
    networks: tuple[str, ...] = option(
        tuple(NETWORKS), "networks, separated by commas", group="measuring"
    )
    runtimes: tuple[str, ...] = option(("eager", "onnxruntime"), "runtimes", group="measuring")
    threads: tuple[int, ...] = option((1, 2), "numbers of CPU threads", group="measuring")
    share: float = option(0.5, "of the dense latency, that is aimed at", group="measuring")
    contest: tuple[float, ...] = option(
        (0.7, 0.5), "shares of the dense latency at which methods are compared", group="measuring"
    )
    write: bool = option(False, "store the numbers, renew the page", group="run")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("networks", NETWORKS), ("runtimes", RUNTIMES)):
            for value in getattr(self, name):
                if value not in known:
                    raise ValueError(f"--{name} has {value!r}: expected some of {', '.join(known)}")


def benchmark_command(config: LatencyConfig) -> dict[str, Any]:
    """Measure all settings and return what was found.

    Raises:
        ValueError: bad input, or a runtime that is not installed.
    """
    measured = {
        "speed": [row for name in config.networks for row in _speed(config, _opened(config, name))],
        "contest": [
            row for name in config.networks for row in _contest(config, _opened(config, name))
        ],
        "environment": environment(torch.device("cpu")),
    }
    if config.write:
        _write(measured)
    return measured


def _write(measured: Mapping[str, Any]) -> None:
    """Store what was measured in place of what these networks had; renew the page."""
    stored = json.loads(MEASURED.read_text()) if MEASURED.exists() else measured
    for part in ("speed", "contest"):
        here = {row["network"] for row in measured[part]}
        others = [row for row in stored[part] if row["network"] not in here]
        rows = [*others, *measured[part]]
        stored[part] = sorted(rows, key=lambda row: list(NETWORKS).index(row["network"]))
    stored["environment"] = measured["environment"]
    write_text(MEASURED, json.dumps(stored, indent=1) + "\n")
    write_block("latency", stored_text(stored))


def _opened(config: LatencyConfig, name: str) -> Prunable:
    """Return a network and its L1 scores."""
    if name == "resnet_56" and config.resume is not None:
        dense = load_network(config.resume, name)
    else:
        dense = draw_network(name, config.seed)
    scores = score_layers(dense, criterion="l1", rank_folder=Path(), seed=config.seed)
    return Prunable(dense, scores, None, group=False)


def _speed(config: LatencyConfig, network: Prunable) -> Iterator[dict[str, Any]]:
    """Yield what a target in time reaches in each setting."""
    name = network.dense.spec
    for runtime in config.runtimes:
        for batch_size in (1, NETWORKS[name]):
            for threads in config.threads:
                timing = Timing(runtime, batch_size, threads)
                note(f"{name}, {runtime}, {counted(batch_size, 'image')}, {threads} threads")
                start = time.perf_counter()
                model, facts = by_time(network, timing, config.share)
                seconds = time.perf_counter() - start
                times = timing.compare(
                    {"dense": network.dense.model, "pruned": model}, _image(network)
                )
                yield {
                    "network": name,
                    "runtime": runtime,
                    "batch_size": batch_size,
                    "threads": threads,
                    "dense_ms": times["dense"].median_ms,
                    "pruned_ms": times["pruned"].median_ms,
                    "dense": counts(physical_cost(network.dense.model, _image(network))),
                    "pruned": counts(physical_cost(model, _image(network))),
                    "seconds": seconds,
                    **facts,
                }


def _image(network: Prunable) -> torch.Tensor:
    return network.dense.image


def _contest(config: LatencyConfig, network: Prunable) -> Iterator[dict[str, Any]]:
    """Yield our networks and others' that take the same share of the time, on the last runtime."""
    dense, name = network.dense, network.dense.spec
    timing = Timing(config.runtimes[-1], NETWORKS[name], config.threads[0])
    trained = name == "resnet_56" and config.resume is not None
    images = open_images(config, dense) if trained else None
    if config.contest:
        yield _row(name, "dense", 1.0, dense.model, network, images)
    for share in config.contest:
        for how, found in _networks(network, timing, share, trained, config.seed):
            note(f"{name} at {share:.0%}: {how}")
            try:
                model, left = found()
            except Exception as error:  # what another tool cannot do is part of the result
                note(f"{how}: {type(error).__name__}: {error}")
                continue
            yield {"share": share, **_row(name, how, left, model, network, images)}


def _networks(network: Prunable, timing: Timing, share: float, trained: bool, seed: int):
    """Yield (name, what makes the network and says its share of the time) of each contestant."""

    def in_time(prunable: Prunable):
        model, _ = by_time(prunable, timing, share)
        times = timing.compare({"dense": network.dense.model, "pruned": model}, _image(network))
        return model, times["pruned"].median_ms / times["dense"].median_ms

    def by_knob(knob: Knob):
        return at_share(network.dense, timing, knob, share)

    yield "target in time, l1", lambda: in_time(network)
    if trained:
        ranks = Path("rank_conv") / network.dense.spec
        how = {"criterion": "rank", "rank_folder": ranks, "seed": seed, "force": True}
        ranked = Prunable(
            network.dense,
            score_layers(network.dense, **how),
            full_ranks(network.dense, ranks),
            True,
        )
        yield "target in time, rank", lambda: in_time(ranked)
    yield "MACs, l1", lambda: by_knob(by_macs(network))
    grouped = Prunable(network.dense, network.scores, None, group=True)
    yield "MACs, l1, --group", lambda: by_knob(by_macs(grouped))
    for name, knob in torch_pruning(network.dense).items():
        yield name, lambda knob=knob: by_knob(knob)


def _row(
    name: str, how: str, left: float, model: nn.Module, network: Prunable, images: Images | None
) -> dict[str, Any]:
    row = {"network": name, "how": how, "left": left}
    row |= counts(physical_cost(model, _image(network)))
    if images is not None:
        if how != "dense":
            recalibrate(model, images.recalibration_batches(1000, 0))
        accuracy = measure_accuracy(model, images.evaluation_batches(images.test))
        row |= {"correct": accuracy.correct, "images": accuracy.images}
    return row


def stored_text(measured: Mapping[str, Any]) -> str:
    """Return both tables and, below them, on what they were measured."""
    made = measured["environment"]
    provenance = (
        f"{made['device']} ({made['cpus']} CPU cores); torch {made['torch']}; commit "
        f"{made['commit']}.\n\n    {made['command']}"
    )
    speed = table(_SPEED, [_speed_cells(row) for row in measured["speed"]])
    contest = table(_CONTEST, [_contest_cells(row) for row in measured["contest"]])
    return f"{speed}\n\n{contest}\n\n{provenance}"


def _speed_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    speedup = row["dense_ms"] / row["pruned_ms"]
    fewer = row["dense"]["macs"] / row["pruned"]["macs"]
    return (
        row["network"],
        row["runtime"],
        str(row["batch_size"]),
        str(row["threads"]),
        f"{row['dense_ms']:.2f} ms",
        f"{1 / speedup:.1%}",
        f"{speedup:.2f}",
        f"{fewer:.2f}x fewer",
        f"{speedup / fewer:.2f}",
        str(row["block"]),
        f"{row['sum_error']:+.1%}",
        f"{row['seconds']:.0f}",
    )


def _contest_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    right = f"{row['correct']} of {row['images']}" if "correct" in row else ""
    counted_up = (millions(row["macs"]), millions(row["parameters"]))
    return (row["network"], row["how"], f"{row['left']:.1%}", *counted_up, right)


def main(argv: Sequence[str]) -> int:
    """Measure, print the tables or with --json the numbers, and return the exit code."""
    return run(
        LatencyConfig,
        always(benchmark_command, stored_text),
        argv,
        prog="latency",
        description="What targets in time reach, and who is better at the same time.",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
