"""A latency table: how long each layer of a network takes at any widths, on one runtime.

Layers are timed on a coarse grid of the channels that they read and write, with the norm, sum and
activation behind them; in between, times are interpolated. Runtimes compute in blocks of channels,
and a width in between two blocks takes as long as the next: how large blocks are is found by
timing, too.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from utils.metrics.layer_shapes import FOURS, LayerShape
from utils.metrics.runtimes import CPU, RUNTIMES, Runtime
from utils.runs.atomic_write import write_json
from utils.runs.environment import environment
from utils.runs.json_files import read_json
from utils.runs.regular_file import is_there
from utils.runs.schema import OBJECT, MapOf, number, whole

_SHARES = (0.125, 0.4, 0.7, 1.0)  # of a layer's width, on the grid
_BLOCKS = (32, 16, 8)  # tried; else channels go in fours
_FREE = 1.03  # a time that is no longer than another, but for noise
_PROBES = range(32, 65, FOURS)  # widths by which blocks are told apart
_SCHEMA = {"measured_on": OBJECT, "block": whole(0), "uneven": number(0), "cells": MapOf(number(0))}


@dataclass
class LatencyTable:
    """Times of layers, {kind and widths: ms}, and what they were measured on.

    `block` is the number of channels to whose multiples a width may be rounded up at no time (one
    of less than a block, to fours); `uneven` how
    many times as long a depthwise conv takes whose width is not a multiple of four.
    """

    measured_on: dict[str, Any]
    block: int = 0  # not found yet
    uneven: float = 0.0
    cells: dict[str, float] = field(default_factory=dict)

    def layer_ms(self, dense: LayerShape, reads: int, writes: int) -> float:
        """Return the time of a layer that reads and writes so many channels instead of all.

        Where it is not measured it is interpolated; none of a layer that writes nothing.
        """
        columns, rows = _axis(dense.reads, self.block), _axis(dense.writes, self.block)
        if dense.depthwise:
            even = self._depthwise(dense, columns, self._rounded(reads, dense.reads))
            return even * (self.uneven if reads % FOURS else 1.0)
        reads, writes = self._rounded(reads, dense.reads), self._rounded(writes, dense.writes)
        return _between(
            rows, writes, lambda w: _between(columns, reads, lambda r: self._cell(dense.at(r, w)))
        )

    def _depthwise(self, dense: LayerShape, widths: list[int], width: int) -> float:
        times = dense.writes // dense.reads
        return _between(widths, width, lambda w: self._cell(dense.at(w, w * times)))

    def _rounded(self, width: int, whole: int) -> int:
        step = self.block if width > self.block else FOURS
        return min(whole, -(-width // step) * step)

    def _cell(self, shape: LayerShape) -> float:
        return self.cells[_key(shape)]

    def sum_ms(self, shapes: Iterable[LayerShape]) -> float:
        """Return the time of all layers as they are."""
        return sum(x.calls * self.layer_ms(x, x.reads, x.writes) for x in shapes)


def measure_table(
    runtime: Runtime,
    shapes: Iterable[LayerShape],
    batch_size: int,
    path: Path,
    *,
    device: torch.device = CPU,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LatencyTable:
    """Time what a table lacks of the layers, and return it; `path` keeps it as JSON.

    Cells that the file has are not timed again, so that a run that was stopped goes on, and layers
    that other networks have in common are timed once; but a file of other hardware, versions,
    batch or threads is begun anew.

    Args:
        progress: is told how many of how many cells are done.
    """
    shapes = list(shapes)
    clock = _Clock(runtime, batch_size, device)
    table = _with_block(clock, shapes, path)
    if not table.uneven and any(shape.depthwise for shape in shapes):
        table.uneven = _find_uneven(clock, shapes, table.block)
    wanted = {_key(cell): cell for shape in shapes for cell in _grid(shape, table.block)}
    lacking = [key for key in wanted if key not in table.cells]
    for done, key in enumerate(lacking):
        progress(done, len(lacking))
        table.cells[key] = clock.ms(wanted[key])
        if done % 20 == 0:
            write_json(path, asdict(table))
    progress(len(lacking), len(lacking))
    write_json(path, asdict(table))
    return table


def measure_block(
    runtime: Runtime,
    shapes: Iterable[LayerShape],
    batch_size: int,
    path: Path,
    *,
    device: torch.device = CPU,
) -> int:
    """Return the block of the table at `path`; where it is not known it is found and kept there."""
    return _with_block(_Clock(runtime, batch_size, device), list(shapes), path).block


def _with_block(clock: "_Clock", shapes: list[LayerShape], path: Path) -> LatencyTable:
    table = _opened(path, _measured_on(clock))
    if not table.block:
        table.block = _find_block(clock, shapes)
        write_json(path, asdict(table))
    return table


@dataclass(frozen=True)
class _Clock:
    """Times layers on one runtime, of one batch size."""

    runtime: Runtime
    batch_size: int
    device: torch.device = CPU

    def ms(self, shape: LayerShape) -> float:
        return self.runtime.layer_ms(shape, self.batch_size, self.device)


def _measured_on(clock: _Clock) -> dict[str, Any]:
    here, runtime = environment(clock.device), clock.runtime
    setting = {"runtime": runtime.name, "version": runtime.version()}
    setting["batch_size"] = clock.batch_size
    return setting | {name: here[name] for name in ("device", "cpus", "threads")}


def _opened(path: Path, measured_on: dict[str, Any]) -> LatencyTable:
    """Return the table of the file if it was measured on the same, else an empty one."""
    kept = read_json(path, _SCHEMA, "a latency table") if is_there(path) else {}
    if kept.get("measured_on") == measured_on:
        return LatencyTable(**{name: kept[name] for name in _SCHEMA})
    return LatencyTable(measured_on)


def table_of(path: Path, shapes: Iterable[LayerShape]) -> LatencyTable | None:
    """Return a file's table, None if it is of another machine or runtime, or lacks a layer."""
    try:
        kept = read_json(path, _SCHEMA, "a latency table")
    except ValueError:
        return None
    made, here = kept["measured_on"], environment(CPU)
    runtime = RUNTIMES.get(made.get("runtime"))
    if runtime is None or runtime.missing() or made.get("version") != runtime.version():
        return None
    table = LatencyTable(**{name: kept[name] for name in _SCHEMA})
    same = all(made.get(name) == here[name] for name in ("device", "cpus"))
    if not (same and table.block and {"batch_size", "threads"} <= made.keys()):
        return None
    wanted = {_key(cell) for shape in shapes for cell in _grid(shape, table.block)}
    return table if wanted <= table.cells.keys() else None


def _key(shape: LayerShape) -> str:
    return f"{shape.kind()}: {shape.reads} > {shape.writes}"


def _axis(width: int, block: int) -> list[int]:
    """Return the widths of the grid: full blocks, about at the shares, parts of one, and all."""
    full = {max(1, round(share * width / block)) * block for share in _SHARES}
    parts = {-(-block // parts // FOURS) * FOURS for parts in (2, 4)}
    return sorted({w for w in full | parts if w < width} | {width})


def _grid(dense: LayerShape, block: int) -> list[LayerShape]:
    columns = _axis(dense.reads, block)
    if dense.depthwise:
        return [dense.at(width, width * (dense.writes // dense.reads)) for width in columns]
    if dense.per_group:
        columns = [w for w in columns if w % dense.per_group == 0]
    rows = _axis(dense.writes, block)
    return [dense.at(r, w) for r in columns for w in rows if w % dense.at(r, w).groups == 0]


def _between(axis: list[int], width: int, value: Callable[[int], float]) -> float:
    """Return the value at a width, on the line through its neighbours on the axis."""
    if len(axis) == 1:
        return value(axis[0])
    right = min(max(bisect_left(axis, width), 1), len(axis) - 1)
    low, high = axis[right - 1], axis[right]
    share = (width - low) / (high - low)
    return max(0.0, value(low) * (1 - share) + value(high) * share)


def find_block(runtime: Runtime, shapes: Iterable[LayerShape], batch_size: int) -> int:
    """Return the largest block up to which rounding widths up costs no time, on average."""
    return _find_block(_Clock(runtime, batch_size), list(shapes))


def _find_block(clock: _Clock, shapes: list[LayerShape]) -> int:
    plain = [x for x in shapes if x.kernel and not x.per_group and min(x.reads, x.writes) >= FOURS]
    if not plain:
        return FOURS
    typical = max(plain, key=lambda x: min(x.reads, x.writes))
    ms = {width: clock.ms(typical.at(width, width)) for width in _PROBES}
    for block in _BLOCKS:
        dearer = [ms[-(-width // block) * block] / ms[width] for width in _PROBES]
        if sum(dearer) <= _FREE * len(dearer):
            return block
    return FOURS


def _find_uneven(clock: _Clock, shapes: list[LayerShape], block: int) -> float:
    """Return how many times as long as in full blocks a depthwise conv of an odd width takes."""
    dense = next(shape for shape in shapes if shape.depthwise)
    times = dense.writes // dense.reads
    even = -(-dense.reads // block) * block
    odd, full = (clock.ms(dense.at(w, w * times)) for w in (even - 1, even))
    return max(1.0, odd / full)


def sum_error(table: LatencyTable, shapes: Mapping[str, LayerShape], whole_ms: float) -> float:
    """Return by what share the sum of a network's layers differs from its time as a whole."""
    return table.sum_ms(shapes.values()) / whole_ms - 1


def padded_macs(shapes: Mapping[str, LayerShape], block: int) -> int:
    """Return the MACs of a network whose widths are rounded up to full blocks, but the image's."""

    def padded(width: int) -> int:
        return -(-width // block) * block if width >= FOURS else width

    wide = (shape.at(padded(shape.reads), padded(shape.writes)) for shape in shapes.values())
    return sum(shape.macs for shape in wide)
