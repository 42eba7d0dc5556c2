"""A target in time: levels of a network's units that keep the most score within it.

A latency table and the knapsack propose a network, the runtime times it beside the dense one, and
what the model missed by corrects the next proposal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.branches import Branch
from utils.graph.network import Network
from utils.metrics.latency import Latency, compare_latency, using_threads
from utils.metrics.latency_table import LatencyTable, measure_block, measure_table, sum_error
from utils.metrics.layer_shapes import layer_shapes
from utils.metrics.runtimes import runtime_of
from utils.pruning.rate_units import Levels, RateUnit
from utils.pruning.time_model import TimeModel
from utils.removal.record import Removal, last_removal
from utils.removal.surgery import remove_filters
from utils.runs import processes
from utils.runs.bars import bar
from utils.runs.notes import note

TABLES = Path("result") / "latency"
TIME_TOLERANCE = 0.05  # of a target in time
_NEAR = 0.02  # no further round for less
_ROUNDS = 4
_TURNS_MS = 3000.0  # how long the turns of one comparison may take, about
_LEAST_TURNS, _MOST_TURNS = 7, 300
_AGREE = 1.2  # measurements of the same network that differ by more are made again
BUSY = 1.5  # a spread of times by which other work disturbs


@dataclass(frozen=True)
class Timing:
    """How networks are timed: on which runtime, of how many images, with how many threads."""

    runtime: str
    batch_size: int
    threads: int | None = None  # None: as many as torch takes

    def compare(self, models: Mapping[str, nn.Module], image: Tensor) -> dict[str, Latency]:
        """Return the networks' latencies, in turns, for about so long as is worth it."""
        batch = image.expand(self.batch_size, *image.shape[1:]).contiguous()
        with using_threads(self.threads):
            (first, model), *_ = models.items()
            once = compare_latency({first: model}, batch, 3, warmup=1, runtime=self.runtime)
            turns = int(_TURNS_MS / (once[first].median_ms * len(models)))
            turns = min(max(turns, _LEAST_TURNS), _MOST_TURNS)
            found = compare_latency(models, batch, turns, runtime=self.runtime)
            if max(latency.spread for latency in found.values()) > BUSY:  # once more, at length
                found = compare_latency(models, batch, 3 * turns, runtime=self.runtime)
            return found

    def block(self, model: nn.Module, image: Tensor) -> int:
        """Return how many channels the runtime computes at once, which is found only once."""
        shapes = layer_shapes(model, image).values()
        with using_threads(self.threads):
            return processes.from_first(
                lambda: measure_block(
                    runtime_of(self.runtime),
                    shapes,
                    self.batch_size,
                    self._path(image.device),
                    device=image.device,
                )
            )

    def _path(self, device: torch.device) -> Path:
        threads = self.threads or "all"
        return TABLES / f"{self.runtime}_{device.type}_{self.batch_size}_{threads}.json"

    def table(self, model: nn.Module, image: Tensor) -> LatencyTable:
        """Return the latency table of a network's layers; what it lacks is measured, with a bar."""
        shapes = layer_shapes(model, image).values()
        with using_threads(self.threads), bar(desc="latency table", unit="layer") as cells:

            def progress(done: int, total: int) -> None:
                cells.total = total
                cells.update(done - cells.n)

            runtime, path = runtime_of(self.runtime), self._path(image.device)
            how = {"device": image.device, "progress": progress}
            return processes.from_first(
                lambda: measure_table(runtime, shapes, self.batch_size, path, **how)
            )


def time_model(
    dense: Network, units: Sequence[RateUnit], timing: Timing, branches: Sequence[Branch] = ()
) -> tuple[TimeModel, dict[str, Any]]:
    """Return the model of a network's time, and what it rests on: block, times and their error.

    `branches` are those that may be dropped.
    """
    image, model = dense.image, dense.model
    table, shapes = timing.table(model, image), layer_shapes(model, image)
    whole = timing.compare({"dense": model}, image)["dense"].median_ms
    error = sum_error(table, shapes, whole)
    note(
        f"latency table: blocks of {table.block} channels; the layers' times sum up to "
        f"{error:+.1%} of the whole network's {whole:.2f} ms"
    )
    facts = {"block": table.block, "whole_ms": whole, "sum_error": error}
    how = removal_without_copies(dense, units)
    return TimeModel(units, dense.graph, shapes, table, whole, how, branches), facts


def removal_without_copies(dense: Network, units: Sequence[RateUnit]) -> Removal:
    """Return how channels go where nothing is copied, found by half of each group's."""
    masks = {name: torch.ones(n, dtype=torch.bool) for name, n in dense.graph.filters().items()}
    for group in (group for unit in units for group in unit.groups):
        for layer, index in (x for channel in group.channels[1::2] for x in channel):
            masks[layer][index] = False
    slim = remove_filters(dense.model, dense.graph, masks, align="zeros", check=False)
    return last_removal(slim) or Removal("zeros")


def land_in_time(
    dense: Network,
    timing: Timing,
    *,
    proposed: Callable[[float], Levels],
    predicted: Callable[[Levels], float],
    made: Callable[[Levels], nn.Module],
    target: float,
) -> tuple[Levels, dict[str, Any]]:
    """Return the levels whose network, really made and timed, takes `target` of the dense time.

    The least that there is is timed first: it says what is in reach, and with the dense network
    how far the model is off at either end. A network that is near is timed a second time, since of
    several noisy measurements the one that fits is the luckiest; what is returned is the median of
    the chosen network's.

    Args:
        proposed: the levels that take a share of the dense time, by the model.
        predicted: the share that levels take, by the model.
        made: the network of levels.
    """
    image, rounds = dense.image, []
    asked_for: dict[Levels, float] = {}
    found: dict[Levels, list[dict[str, Latency]]] = {}

    def timed(levels: Levels) -> float:
        times = timing.compare({"dense": dense.model, "pruned": made(levels)}, image)
        found.setdefault(levels, []).append(times)
        measured, asked = share_of(times), asked_for[levels]
        rounds.append({"asked": asked, "measured": measured})
        note(f"timed: {measured:.1%} of the dense network's time, by the model {asked:.1%}")
        return share(levels)

    def share(levels: Levels) -> float:
        return median(share_of(times) for times in found[levels])

    least = tuple(proposed(0.0))
    asked_for[least] = predicted(least)
    out_of_reach = timed(least) >= target and timed(least) >= target
    for _ in range(0 if out_of_reach else _ROUNDS):
        points = [(1.0, 1.0), *((share(levels), asked_for[levels]) for levels in found)]
        asked = corrected(points, target)
        levels = tuple(proposed(asked))
        if len(found.get(levels, ())) > 1:
            break
        if levels in found:  # what was measured leads nowhere new: it may have been noise
            timed(least)
        asked_for[levels] = asked
        if _is_near(timed(levels), target) and _is_near(timed(levels), target):
            break
    levels = min(found, key=lambda levels: abs(share(levels) - target))
    while len(found[levels]) < 2 or (_apart(found[levels]) > _AGREE and len(found[levels]) < 5):
        timed(levels)
    times = found[levels][-1]
    latency = {name: asdict(latency) for name, latency in times.items()}
    spread = max(_apart(found[levels]), *(latency.spread for latency in times.values()))
    return levels, {"left": share(levels), "latency": latency, "spread": spread, "rounds": rounds}


def _apart(measured: Sequence[Mapping[str, Latency]]) -> float:
    """Return how many times another a network's share of the dense time was, measured again."""
    shares = [share_of(times) for times in measured]
    return max(shares) / min(shares)


def _is_near(share: float, target: float) -> bool:
    return abs(share / target - 1) <= _NEAR


def share_of(timed: Mapping[str, Latency]) -> float:
    """Return the pruned network's share of the dense one's time."""
    return timed["pruned"].median_ms / timed["dense"].median_ms


def corrected(points: Sequence[tuple[float, float]], target: float) -> float:
    """Return which share to ask the model for, so that `target` is measured.

    On the line between the nearest points, (measured, asked), on either side of the target; where
    all measured more, in proportion to the nearest.
    """
    above = min(point for point in points if point[0] >= target)
    below = max((point for point in points if point[0] < target), default=None)
    if below is None:
        return above[1] * target / above[0]
    (low, asked_low), (high, asked_high) = below, above
    return asked_low + (asked_high - asked_low) * (target - low) / (high - low)
