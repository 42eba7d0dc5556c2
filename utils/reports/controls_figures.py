"""The figure of an experiment, drawn where matplotlib is installed: top-1 as bars."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.paper.markdown import counted
from utils.reports.figure_style import BLUE, GREY, ORANGE, WIDTH, tidy, write_figures

_STATES = {  # of a row: label and look
    "after": ("pruned and fine-tuned", {"color": BLUE}),
    "scratch": ("the same network from scratch", {"color": "white", "edgecolor": BLUE}),
    "before": ("pruned, before fine-tuning", {"color": ORANGE}),
}


def draw_controls(path: Path, summary: Mapping[str, Any]) -> None:
    """Write top-1 as bars, a panel for each level of pruning, best criterion first.

    Lines across the ends of bars are the standard deviation over the seeds.
    """
    write_figures({path: lambda figure: _paint(figure, summary)})


def bars(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return {criterion: {state: (mean top-1, deviation)}} of a level, best fine-tuned first.

    A state, "after", "scratch" or "before", is missing where it was not measured.
    """
    ordered = sorted(rows, key=lambda row: -row["after"]["mean"])
    return {
        row["criterion"]: {
            state: (row[state]["mean"], row[state]["deviation"] or 0.0)
            for state in _STATES
            if row[state] is not None
        }
        for row in ordered
    }


def _paint(figure: Any, summary: Mapping[str, Any]) -> None:
    levels: dict[str, list[Mapping[str, Any]]] = {}
    for row in summary["rows"]:
        levels.setdefault(row["level"], []).append(row)
    most = max(map(len, levels.values()))
    figure.set_size_inches(WIDTH, 1.8 + 0.5 * most)
    axes = figure.subplots(1, len(levels), sharex=True, squeeze=False)[0]
    for axis, (level, rows) in zip(axes, levels.items(), strict=True):
        _draw(axis, bars(rows), summary["dense"]["accuracy"]["top1_percent"])
        axis.set_title(f"rate {level}", fontsize=10)
        axis.set_xlabel("top-1 accuracy, %")
    axes[0].set_xlim(0, 100)
    once = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        once |= dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=4, fontsize=9)
    options = summary["options"]
    figure.suptitle(
        f"{summary['arch']} pruned by different criteria, {counted(options['epochs'], 'epoch')} of "
        f"fine-tuning on {summary['dataset']}\n"
        f"mean over {counted(len(options['seeds']), 'seed')}, with standard deviation",
        fontsize=10,
    )


def _draw(axis: Any, found: Mapping[str, Mapping[str, tuple[float, float]]], dense: float) -> None:
    """Draw the bars of a level, those of one criterion below each other."""
    axis.axvline(dense, color=GREY, linestyle="--", linewidth=1, label="dense network")
    height = 0.8 / len(_STATES)
    for number, (state, (label, look)) in enumerate(_STATES.items()):
        present = [place for place, of in enumerate(found.values()) if state in of]
        if not present:
            continue
        means, deviations = zip(
            *(list(found.values())[place][state] for place in present), strict=True
        )
        places = [place + (number - 1) * height for place in present]
        axis.barh(places, means, height * 0.9, xerr=deviations, label=label, capsize=2, **look)
    axis.set_yticks(range(len(found)), list(found))
    axis.invert_yaxis()
    tidy(axis)
    axis.grid(axis="y", visible=False)
