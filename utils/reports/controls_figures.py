"""The figure of an experiment, drawn where matplotlib is installed: top-1 against MACs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.paper.markdown import counted
from utils.reports.figure_style import COLORS, GREY, MARKERS, WIDTH, tidy, write_figures

_HEIGHT = 4.6  # inches


def draw_controls(path: Path, summary: Mapping[str, Any]) -> None:
    """Write top-1 before and after fine-tuning against physical MACs; a mark for each criterion.

    Hollow marks are of training from scratch; bars are the standard deviation over the seeds.
    """
    write_figures({path: lambda figure: _paint(figure, summary)})


def curves(summary: Mapping[str, Any], state: str) -> dict[str, list[tuple[float, float, float]]]:
    """Return {criterion: [(MACs in millions, mean top-1, deviation)]} along the levels.

    `state` is "before", "after" or "scratch"; without runs from scratch, that has no points.
    """
    found: dict[str, list[tuple[float, float, float]]] = {}
    for row in summary["rows"]:
        points = found.setdefault(row["criterion"], [])
        if row[state] is not None:
            spread = row[state]["deviation"] or 0.0
            points.append((row["macs"] / 1e6, row[state]["mean"], spread))
    return found


def _paint(figure: Any, summary: Mapping[str, Any]) -> None:
    figure.set_size_inches(WIDTH, _HEIGHT)
    before, after = figure.subplots(1, 2)
    _draw(before, curves(summary, "before"), summary, title="before fine-tuning")
    epochs = counted(summary["options"]["epochs"], "epoch")
    _draw(after, curves(summary, "after"), summary, title=f"after {epochs}")
    if any(curves(summary, "scratch").values()):
        _draw(after, curves(summary, "scratch"), summary, hollow=True)
        after.set_title(f"after {epochs}; hollow: from scratch", fontsize=10)
    before.set_ylabel("top-1 accuracy, %")
    handles, labels = before.get_legend_handles_labels()
    columns = (len(labels) + 1) // 2 if len(labels) > 4 else len(labels)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    seeds = counted(len(summary["options"]["seeds"]), "seed")
    figure.suptitle(
        f"{summary['arch']}, {summary['dataset']}: mean over {seeds}, bars: standard deviation",
        fontsize=11,
    )


def _draw(
    axis: Any,
    points_of: Mapping[str, list[tuple[float, float, float]]],
    summary: Mapping[str, Any],
    *,
    title: str = "",
    hollow: bool = False,
) -> None:
    """Draw the points of every criterion, joined along the levels; in a new panel, the rest too."""
    if not hollow:
        dense = summary["dense"]["accuracy"]["top1_percent"]
        axis.axhline(dense, color=GREY, linestyle="--", linewidth=1, label="dense")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("MACs of one image, physical, millions")
        tidy(axis)
    for number, (criterion, points) in enumerate(points_of.items()):
        color = COLORS[number % len(COLORS)]
        macs, means, deviations = zip(*sorted(points), strict=True)
        axis.errorbar(
            macs,
            means,
            yerr=deviations,
            label=None if hollow else criterion,
            color=color,
            marker=MARKERS[number % len(MARKERS)],
            markerfacecolor="white" if hollow else color,
            markersize=7,
            linestyle=":" if hollow else "-",
            linewidth=1,
            capsize=3,
        )
