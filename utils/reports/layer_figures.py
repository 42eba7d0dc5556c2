"""The figure of a pruned network's layers: filters and MACs that stay, and that go."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.reports.figure_style import (
    BLUE,
    VERMILION,
    WIDTH,
    name_places,
    tidy,
    write_figures,
)

_UNITS = {"filters": "filters", "macs": "MACs, millions"}


def write_layer_figure(path: Path, summary: Mapping[str, Any]) -> None:
    """Write what `prune` leaves of each conv and, on top of it, what it removes."""
    write_figures({path: lambda figure: paint_layers(figure, summary)})


def layer_bars(summary: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Return how many filters and millions of MACs stay, and how many there were, conv by conv.

    The MACs are physical: those of the network that is really there.
    """
    layers = summary["layers"]
    return {
        "filters": [(len(layer["kept"]), layer["filters"]) for layer in layers],
        "macs": [(x["macs"]["pruned"] / 1e6, x["macs"]["dense"] / 1e6) for x in layers],
    }


def paint_layers(figure: Any, summary: Mapping[str, Any]) -> None:
    """Draw `layer_bars`, without gaps: a hundred layers are read, and drawn, as fast as ten."""
    figure.set_size_inches(WIDTH, 5)
    axes = figure.subplots(len(_UNITS), sharex=True)
    bars = layer_bars(summary)
    for axis, (what, unit) in zip(axes, _UNITS.items(), strict=True):
        kept, before = zip(*bars[what], strict=True)
        edges = [number - 0.5 for number in range(len(kept) + 1)]
        removed = {"facecolor": "white", "edgecolor": VERMILION, "hatch": "//////"}
        axis.stairs(before, edges, baseline=kept, fill=True, label="removed", **removed)
        axis.stairs(kept, edges, fill=True, color=BLUE, label="kept")
        axis.set(ylabel=unit, xlim=(edges[0], edges[-1]))
        tidy(axis)
    name_places(axes[-1], [layer["conv"] for layer in summary["layers"]])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(_title(summary), fontsize=10)


def _title(summary: Mapping[str, Any]) -> str:
    kept, before = map(sum, zip(*layer_bars(summary)["filters"], strict=True))
    macs = {state: cost["macs"] / 1e6 for state, cost in summary["physical"].items()}
    return (
        f"{summary['arch']}, pruned by {summary['criterion']}: {before:,} -> {kept:,} filters; "
        f"MACs, physical: {macs['dense']:.2f}M -> {macs['pruned']:.2f}M "
        f"(-{100 * (1 - macs['pruned'] / macs['dense']):.1f}%)"
    )
