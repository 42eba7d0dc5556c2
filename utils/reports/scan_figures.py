"""The figures of a sensitivity scan, drawn where matplotlib is installed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from utils.options.weight_options import pruned_by
from utils.reports.figure_style import (
    BLUE,
    VERMILION,
    WIDTH,
    tidy,
    write_figures,
)

_COLUMNS = 8  # of small curves, at most
_WORST = 15  # layers in the grid
_BOUNDS = (-100, 1, 2, 5, 10, 20, 50, 100)  # points of accuracy at which the colour changes


def write_scan_figures(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write scan.png, what the worst units cost at each rate, and a curve each, scan_curves.png."""
    write_figures(
        {
            folder / "scan.png": lambda figure: _grid(figure, summary),
            folder / "scan_curves.png": lambda figure: _curves(figure, summary),
        }
    )


def worst_units(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the units that lose the most accuracy in the mean over the rates, worst first."""
    found = [unit for unit in summary["units"] if unit["points"]]
    return sorted(found, key=lambda unit: mean(p["top1_percent"] for p in unit["points"]))[:_WORST]


def sensitivity_grid(
    summary: Mapping[str, Any], units: Sequence[Mapping[str, Any]]
) -> tuple[list[float], list[list[float]], list[tuple[int, int]]]:
    """Return the rates, the points of accuracy lost, and the cells that leave the interval.

    The losses are a row for each of `units`, a column for each rate, ascending, NaN where it was
    not scanned; a cell (row, column), counted from 0, is below the dense network's 95% interval.
    """
    dense = summary["dense"]
    rates = sorted({point["rate"] for unit in units for point in unit["points"]})
    losses = [[math.nan] * len(rates) for _ in units]
    below = []
    for row, unit in enumerate(units):
        for point in unit["points"]:
            column = rates.index(point["rate"])
            losses[row][column] = dense["top1_percent"] - point["top1_percent"]
            if point["top1_percent"] < dense["interval_percent"][0]:
                below.append((row, column))
    return rates, losses, below


def _grid(figure: Any, summary: Mapping[str, Any]) -> None:
    """Draw the worst units as rows, the rates as columns, the points lost in the cells."""
    from matplotlib.colors import BoundaryNorm

    units = worst_units(summary)
    rates, losses, below = sensitivity_grid(summary, units)
    dense, (what, criterion) = summary["dense"], pruned_by(summary["options"])
    figure.set_size_inches(WIDTH, 1.8 + 0.3 * len(units))
    axis = figure.subplots()
    colors = {"cmap": "Blues", "norm": BoundaryNorm(_BOUNDS, 256)}
    axis.imshow(losses, aspect="auto", interpolation="nearest", **colors)
    for row, column in ((r, c) for r, line in enumerate(losses) for c in range(len(line))):
        lost = losses[row][column]
        look = {"color": "white" if lost > 10 else "black", "ha": "center", "va": "center"}
        weight = "bold" if (row, column) in below else "normal"
        axis.text(column, row, "" if math.isnan(lost) else f"{lost:.1f}", weight=weight, **look)
    axis.set_yticks(range(len(units)), [unit["name"] for unit in units])
    axis.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axis.set_xlabel(f"share of {what} removed from this layer alone")
    shown = f"the {len(units)} most sensitive of {len(summary['units'])} layers"
    axis.set_title(
        f"{summary['arch']}: points of accuracy lost, {shown}, by {criterion}, without fine-tuning"
        f"\n{dense['images']} images of {summary['dataset']}, dense {dense['top1_percent']:.1f}%; "
        "bold: below its 95% interval",
        fontsize=10,
    )


def _curves(figure: Any, summary: Mapping[str, Any]) -> None:
    """Draw accuracy against rate, a small panel a unit; dashed: dense, with its 95% interval."""
    units, dense = summary["units"], summary["dense"]
    columns = min(_COLUMNS, max(3, math.ceil(len(units) ** 0.5)))
    rows = math.ceil(len(units) / columns)
    figure.set_size_inches(1.75 * columns + 0.5, 1.5 * rows + 1)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis in grid[len(units) :]:
        axis.set_axis_off()
    for number, (axis, unit) in enumerate(zip(grid, units, strict=False)):
        axis.axhspan(*dense["interval_percent"], color=VERMILION, alpha=0.25, linewidth=0)
        axis.axhline(dense["top1_percent"], color=VERMILION, linestyle="--", linewidth=1)
        rates = [point["rate"] for point in unit["points"]]
        percent = [point["top1_percent"] for point in unit["points"]]
        axis.plot(rates, percent, ".-", color=BLUE, markersize=5, linewidth=1.3)
        axis.set_title(f"{unit['name']}: {unit['channels']}", fontsize=8)
        axis.tick_params(labelsize=8, labelbottom=number + columns >= len(units))
        tidy(axis)
    lowest = min(point["top1_percent"] for unit in units for point in unit["points"])
    bottom = 10 * math.floor(min(lowest, dense["interval_percent"][0], 90) / 10)
    grid[0].set(xlim=(0, 1), xticks=(0, 0.5, 1), ylim=(bottom, 100 + (100 - bottom) / 20))
    grid[0].xaxis.set_major_formatter("{x:g}")
    what, criterion = pruned_by(summary["options"])
    figure.suptitle(
        f"{summary['arch']}: top-1 accuracy when one layer (name: how many) alone loses {what} by "
        f"{criterion}\n{dense['images']} images of {summary['dataset']}, without fine-tuning; "
        f"dashed: dense, {dense['top1_percent']:.1f}%, with its 95% interval",
        fontsize=10,
    )
    figure.supxlabel("rate", fontsize=10)
    figure.supylabel("top-1 accuracy, %", fontsize=10)
