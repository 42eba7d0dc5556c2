"""Wall-clock time of a forward pass, measured so that networks can be compared."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.metrics.runtimes import Run, runtime_of
from utils.runs import processes
from utils.runs.bars import bar
from utils.runs.borrowed_state import evaluating

# Medians of the same network, timed twice in turns, differ by a few percent.
FASTER = 0.95


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass of a batch: median and the 10th and 90th percentile, in ms."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    batch_size: int
    threads: int
    device: str
    runtime: str = "eager"

    @property
    def spread(self) -> float:
        """How many times as long the slow passes take as the quick ones: p90 by p10."""
        return self.p90_ms / self.p10_ms if self.p10_ms else 1.0

    @property
    def images_per_second(self) -> float:
        """Throughput at the median: images of a batch by its time."""
        return 1000 * self.batch_size / self.median_ms


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Compute with `count` threads (None: as many as before); at exit it is as many as before.

    Raises:
        ValueError: there are not as many CPUs.
    """
    cpus = os.cpu_count() or 1
    if count is not None and not 1 <= count <= cpus:
        raise ValueError(f"threads: expected 1 to {cpus}, one for each CPU here, got {count}")
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compare_latency(
    models: Mapping[str, nn.Module],
    example: Tensor,
    repeats: int = 30,
    *,
    warmup: int = 5,
    runtime: str = "eager",
) -> dict[str, Latency]:
    """Latency of each of `models`, in eval mode, on the same `example` [N, C, H, W], in turns.

    Every round times each model once, starting with another one each time, so that noise from
    elsewhere on the machine hits all alike. `warmup` rounds go before the `repeats` timed ones. On
    a GPU each pass is waited for. Of several processes, the first one measures, while the others
    wait and get what it found. `runtime`, one of `utils.metrics.runtimes`, runs the networks.

    Raises:
        ValueError: `repeats` is below 1 or `warmup` below 0; the runtime is unknown, not installed,
            or not for the device.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(
            "latency: expected repeats >= 1 and warmup >= 0, "
            f"got repeats={repeats}, warmup={warmup}"
        )
    return processes.from_first(lambda: _compare(models, example, repeats, warmup, runtime))


def _compare(
    models: Mapping[str, nn.Module], example: Tensor, repeats: int, warmup: int, runtime: str
) -> dict[str, Latency]:
    times_ms: dict[str, list[float]] = {name: [] for name in models}
    with ExitStack() as stack, torch.inference_mode():
        for model in models.values():
            stack.enter_context(evaluating(model))
        runs = runtime_of(runtime).prepared(models, example)
        turns = range(-warmup, repeats)
        for turn in bar(turns, desc="timing", unit="round", leave=False):
            for name in rotated(list(models), turn):
                elapsed_ms = _pass_ms(runs[name], example.device)
                if turn >= 0:
                    times_ms[name].append(elapsed_ms)
    return {name: _summary(times, example, runtime) for name, times in times_ms.items()}


def rotated(names: list[str], turn: int) -> list[str]:
    """Return the names in the order of a round: each round begins with another one."""
    first = turn % max(len(names), 1)
    return names[first:] + names[:first]


def _pass_ms(run: Run, device: torch.device) -> float:
    wait_for(device)
    start = time.perf_counter()
    run()
    wait_for(device)
    return 1000 * (time.perf_counter() - start)


def wait_for(device: torch.device) -> None:
    """Let queued work finish: a GPU's forward pass returns before it is computed."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _summary(times_ms: list[float], example: Tensor, runtime: str) -> Latency:
    quantiles = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    p10, median, p90 = torch.tensor(times_ms, dtype=torch.float64).quantile(quantiles).tolist()
    return Latency(
        median_ms=median,
        p10_ms=p10,
        p90_ms=p90,
        batch_size=len(example),
        threads=torch.get_num_threads(),
        device=str(example.device),
        runtime=runtime,
    )


def latencies(networks: Mapping[str, nn.Module], batch: Tensor) -> dict[str, Any]:
    """Return the networks' latencies on one image and on the batch of [N, C, H, W], in turns."""
    timed = {
        "one_image": compare_latency(networks, batch[:1], repeats=20),
        "batch": compare_latency(networks, batch, repeats=5, warmup=1),
    }
    return {
        size: {name: asdict(latency) for name, latency in found.items()}
        for size, found in timed.items()
    }
