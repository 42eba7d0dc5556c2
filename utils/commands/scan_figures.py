"""The figure of a sensitivity scan, drawn where matplotlib is installed."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.commands.inputs import note
from utils.runs.atomic_write import atomic_open

_CURVE, _DENSE = "#0072b2", "#d55e00"  # blue and vermilion, which all kinds of eyes tell apart
_DPI, _MOST_COLUMNS = 130, 8
_PANEL = (1.75, 1.5)  # inches


def write_figure(path: Path, summary: Mapping[str, Any]) -> None:
    """Write accuracy against compress rate, a small curve a unit; without matplotlib, say so.

    The dense accuracy is a dashed line with its 95% interval.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        note("no figure: matplotlib is not installed (pip install matplotlib)")
        return
    units, dense = summary["units"], summary["dense"]
    columns = min(_MOST_COLUMNS, max(3, math.ceil(len(units) ** 0.5)))
    rows = math.ceil(len(units) / columns)
    size = (_PANEL[0] * columns + 0.5, _PANEL[1] * rows + 1)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis in grid[len(units) :]:
        axis.set_axis_off()
    for number, (axis, unit) in enumerate(zip(grid, units, strict=False)):
        axis.axhspan(*dense["interval_percent"], color=_DENSE, alpha=0.25, linewidth=0)
        axis.axhline(dense["top1_percent"], color=_DENSE, linestyle="--", linewidth=1)
        rates = [point["rate"] for point in unit["points"]]
        percent = [point["top1_percent"] for point in unit["points"]]
        axis.plot(rates, percent, ".-", color=_CURVE, markersize=5, linewidth=1.3)
        axis.set_title(f"{unit['name']}: {unit['channels']}", fontsize=8)
        axis.tick_params(labelsize=8, labelbottom=number + columns >= len(units))
        axis.grid(alpha=0.3)
    lowest = min(point["top1_percent"] for unit in units for point in unit["points"])
    bottom = 10 * math.floor(min(lowest, dense["interval_percent"][0], 90) / 10)
    grid[0].set(xlim=(0, 1), xticks=(0, 0.5, 1), ylim=(bottom, 100 + (100 - bottom) / 20))
    grid[0].xaxis.set_major_formatter("{x:g}")
    figure.suptitle(
        f"{summary['arch']}: top-1 accuracy when one layer (name: filters) loses filters by "
        f"{summary['options']['criterion']}\n"
        f"{dense['images']} images of {summary['dataset']}, without fine-tuning; dashed: dense, "
        f"{dense['top1_percent']:.1f}%, with its 95% interval",
        fontsize=10,
    )
    figure.supxlabel("compress rate", fontsize=10)
    figure.supylabel("top-1 accuracy, %", fontsize=10)
    with atomic_open(path) as file:
        figure.savefig(file, format="png")
