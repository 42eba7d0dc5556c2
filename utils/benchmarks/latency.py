"""The latency benchmark: what targets in time reach, and who is better at the same time.

`python -m utils.benchmarks.latency [--write] [options]` measures and prints two tables: what half
of the latency takes on each runtime, and our networks beside those of other methods that take the
same time. Every row is kept in a folder once it is measured: a benchmark that was stopped goes on,
and `--again` measures the options' rows anew. `--write` stores what is kept, and renews the page.
"""

import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from utils.benchmarks.latency_contest import Contestant, Prunable, contestants, levels_in_time
from utils.benchmarks.latency_tuning import right_answers
from utils.commands.door import always, run
from utils.metrics.cost import counts, physical_cost
from utils.metrics.runtimes import RUNTIMES
from utils.options.data_options import DataOptions
from utils.options.images import Images, open_images
from utils.options.networks import draw_network, load_network
from utils.paper.markdown import millions, table
from utils.paper.pages import write_block
from utils.planning.plan import score_layers
from utils.planning.time_target import TIME_TOLERANCE, Timing
from utils.runs.atomic_write import write_json, write_text
from utils.runs.environment import environment
from utils.runs.notes import note
from utils.runs.options import option
from utils.training.recalibration import recalibrate

MEASURED = Path(__file__).with_suffix(".json")
FOLDER = Path("result") / "latency_benchmark"
NETWORKS = {  # images of the larger batch
    "resnet_56": 32,
    "torchvision:resnet50": 8,
    "torchvision:mobilenet_v2": 32,
}
_CONTESTS = {  # (images, share); Torch-Pruning gets a ResNet-56 to no less than two thirds
    "resnet_56": ((32, 0.7), (32, 0.5), (1, 0.5)),
    "torchvision:resnet50": ((8, 0.5),),
    "torchvision:mobilenet_v2": ((32, 0.5),),
}
_CONTEST_RUNTIME = "onnxruntime"
_DENSE, _TORCH_PRUNING = "dense", "Torch-Pruning"
_SPEED = ("network", "runtime", "images", "threads", "dense", "time left", "in reach", "L", "MACs")
_SPEED += ("L by MACs", "block", "sum of layers", "seconds")
_CONTEST = (
    "network",
    "images",
    "asked",
    "how",
    "time left",
    "MACs",
    "parameters",
    "right, recalibrated",
)
_CONTEST += ("right, after 2 epochs",)


@dataclass(frozen=True)
class LatencyConfig(DataOptions):
    """Options of the benchmark."""

    resume: Path | None = option(
        None,
        "weights of the ResNet-56; none: drawn by --seed, as those of the others are",
        metavar="CKPT",
        group="measuring",
    )
    networks: tuple[str, ...] = option(
        tuple(NETWORKS), "networks, separated by commas", group="measuring"
    )
    runtimes: tuple[str, ...] = option(("eager", "onnxruntime"), "runtimes", group="measuring")
    threads: tuple[int, ...] = option((1, 2), "numbers of CPU threads", group="measuring")
    share: float = option(0.5, "of the dense latency, that speed aims at", group="measuring")
    parts: tuple[str, ...] = option(
        ("speed", "contest", "right"),
        "what is measured: speed (targets in time), contest (networks that take the same time), "
        "right (what theirs get right)",
        group="measuring",
    )
    epochs: int = option(2, "epochs of fine-tuning", group="measuring")
    again: bool = option(False, "measure anew what is kept of these rows", group="run")
    kept_alone: bool = option(False, "measure nothing, take what is kept", group="run")
    write: bool = option(False, "store the numbers, renew the page", group="run")

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = ("speed", "contest", "right")
        for name, known in (("networks", NETWORKS), ("runtimes", RUNTIMES), ("parts", parts)):
            for value in getattr(self, name):
                if value not in known:
                    raise ValueError(f"--{name} has {value!r}: expected some of {', '.join(known)}")

    def kept(self, part: str, row: Mapping[str, Any], measure: Callable[[], Mapping]) -> dict:
        """Return the row with what was measured of it, now or before; {} if it was not."""
        words = [part, *(str(value).replace(":", "_").replace(" ", "_") for value in row.values())]
        path = FOLDER / f"{'-'.join(words)}.json"
        if self.kept_alone and not path.exists():
            return {}
        if self.again or not path.exists():
            note(", ".join(words))
            write_json(path, {**row, **measure(), "made": environment(torch.device("cpu"))})
        return json.loads(path.read_text())


def benchmark_command(config: LatencyConfig) -> dict[str, Any]:
    """Measure what is not kept yet, and return what was found.

    Raises:
        ValueError: bad input, or a runtime that is not installed.
    """
    measured: dict[str, Any] = {"speed": [], "contest": []}
    for name in config.networks:
        network = _opened(config, name)
        if "speed" in config.parts:
            measured["speed"] += filter(None, _speed(config, network))
        if "contest" in config.parts:
            measured["contest"] += _contest(config, network)
    measured["environment"] = environment(torch.device("cpu"))
    if config.write:
        _write(config, measured)
    return measured


def _write(config: LatencyConfig, measured: Mapping[str, Any]) -> None:
    """Store what was measured in place of the same rows; renew the page."""
    stored = json.loads(MEASURED.read_text()) if MEASURED.exists() else measured
    names = ("network", "runtime", "batch_size", "threads", "share", "how")

    def place(row: Mapping[str, Any]) -> tuple:
        return tuple(row.get(name) for name in names)

    for part in ("speed", "contest"):
        rows = {place(row): row for row in (*stored[part], *measured[part])}
        order = list(NETWORKS)
        stored[part] = sorted(rows.values(), key=lambda row: order.index(row["network"]))
    stored["environment"] = measured["environment"] | {"command": _command(config)}
    text = re.sub(r"(--data_dir|--resume) \S*/", r"\1 ", json.dumps(stored, indent=1))
    write_text(MEASURED, text + "\n")  # without the folders of this machine
    write_block("latency", stored_text(stored))


def _command(config: LatencyConfig) -> str:
    """Return what measures all of it, wherever the files lie."""
    words = ["python", "-m", "utils.benchmarks.latency", "--write"]
    words += ["--resume", config.resume.name] if config.resume is not None else []
    words += ["--normalization", config.normalization, "--dataset", config.dataset]
    return shlex.join(words)


def _opened(config: LatencyConfig, name: str) -> Prunable:
    """Return a network and its L1 scores, and images if it is trained.

    The norms of one that is drawn get statistics: with those that they begin with, activations fade
    to numbers so small that CPUs compute them slowly.
    """
    images = None
    if name == "resnet_56" and config.resume is not None:
        dense = load_network(config.resume, name)
        images = open_images(config, dense)
    else:
        dense = draw_network(name, config.seed)
        generator = torch.Generator().manual_seed(config.seed)
        noise = torch.randn(8, *dense.image.shape[1:], generator=generator)
        recalibrate(dense.model, [noise])
    scores = score_layers(dense, criterion="l1", rank_folder=Path(), seed=config.seed)
    return Prunable(dense, scores, None, group=False, images=images)


def _costs(network: Prunable, model: nn.Module) -> dict[str, int]:
    return counts(physical_cost(model, network.dense.image))


def _speed(config: LatencyConfig, network: Prunable) -> Iterator[dict[str, Any]]:
    """Yield what a target in time reaches in each setting."""
    name, network = network.dense.spec, replace(network, group=True, drop=True)
    for runtime, batch, threads in product(config.runtimes, (1, NETWORKS[name]), config.threads):
        row = {"network": name, "runtime": runtime, "batch_size": batch, "threads": threads}

        def measure(timing: Timing) -> dict[str, Any]:
            start = time.perf_counter()
            levels, found = levels_in_time(network, timing, config.share)
            found["seconds"] = time.perf_counter() - start
            pruned = _costs(network, network.deployed(levels, found["block"]))
            return {"dense": _costs(network, network.dense.model), "pruned": pruned, **found}

        timing = Timing(runtime, batch, threads)
        yield config.kept("speed", row, lambda timing=timing: measure(timing))


def _contest(config: LatencyConfig, network: Prunable) -> list[dict[str, Any]]:
    """Return our networks and others' that take the same share of the time."""
    name = network.dense.spec
    rows, images = [], network.images
    others = contestants(network, ranks=images is not None, seed=config.seed)
    for batch, share in _CONTESTS[name]:
        timing = Timing(_CONTEST_RUNTIME, batch, config.threads[0])
        found = [_contest_row(config, network, one, timing, share) for one in others]
        found = [row for row in found if "left" in row]
        if images is not None and "right" in config.parts:
            found = _with_right(config, images, others, found)
        rows += found
    return rows


def _contest_row(
    config: LatencyConfig, network: Prunable, one: Contestant, timing: Timing, share: float
) -> dict[str, Any]:
    row = {"network": network.dense.spec, "runtime": timing.runtime}
    row |= {"batch_size": timing.batch_size, "threads": timing.threads}
    row |= {"share": share, "how": one.name}

    def measure() -> dict[str, Any]:
        try:
            setting, left = one.find(timing, share)
        except Exception as error:  # what another tool cannot do is part of the result
            return {"error": f"{type(error).__name__}: {error}"}
        return {"setting": setting, "left": left, **_costs(network, one.make(setting))}

    return config.kept("contest", row, measure)


def _with_right(
    config: LatencyConfig,
    images: Images,
    others: Sequence[Contestant],
    rows: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the rows with right answers; of Torch-Pruning's in time the best is fine-tuned."""
    known, done = {one.name: one for one in others}, []

    def right(row: Mapping[str, Any], epochs: int) -> dict[str, Any]:
        names = ("network", "batch_size", "share", "how")
        key = {name: row[name] for name in names} | {"epochs": epochs}
        path = FOLDER / "-".join(["tuning", *(str(x).replace(" ", "_") for x in key.values())])
        make = known[row["how"]].make
        how = {"epochs": epochs, "folder": path, "seed": config.seed}
        how["recalibrates"] = row["how"] != _DENSE
        return config.kept("right", key, lambda: right_answers(make(row["setting"]), images, **how))

    for row in rows:
        done.append({**row, **_numbers(right(row, 0), correct="correct", images="images")})
    tools = [row for row in done if row["how"].startswith(_TORCH_PRUNING)]
    in_time = [row for row in tools if abs(row["left"] / row["share"] - 1) <= TIME_TOLERANCE]
    best = max(in_time, key=lambda row: row.get("correct", 0), default=None)
    for row in done if config.epochs else ():
        ours = row not in tools
        if row["how"] != _DENSE and (ours or row is best):
            row |= _numbers(right(row, config.epochs), correct="tuned_correct")
    return done


def _numbers(row: Mapping[str, Any], **names: str) -> dict[str, int]:
    """Return what a row has of some numbers; `names` are what each is then called."""
    return {new: row[old] for old, new in names.items() if old in row}


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
    speedup, fewer = 1 / row["left"], row["dense"]["macs"] / row["pruned"]["macs"]
    return (
        row["network"],
        row["runtime"],
        str(row["batch_size"]),
        str(row["threads"]),
        f"{row['latency']['dense']['median_ms']:.2f} ms",
        f"{row['left']:.1%}",
        f"from {row['rounds'][0]['measured']:.0%} on",
        f"{speedup:.2f}",
        f"{fewer:.2f}x fewer",
        f"{speedup / fewer:.2f}",
        str(row["block"]),
        f"{row['sum_error']:+.1%}",
        f"{row['seconds']:.0f}",
    )


def _contest_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    of_images = f" of {row['images']:,}" if "images" in row else ""
    right = (f"{row[x]:,}{of_images}" if x in row else "" for x in ("correct", "tuned_correct"))
    counted_up = (millions(row["macs"]), millions(row["parameters"]))
    return (
        row["network"],
        str(row["batch_size"]),
        f"{row['share']:.0%}",
        row["how"],
        f"{row['left']:.1%}",
        *counted_up,
        *right,
    )


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
