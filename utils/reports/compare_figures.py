"""The figures of `compare`: accuracy and latency against MACs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from utils.reports.comparison_points import (
    accuracy_points,
    evaluated_points,
    latency_points,
)
from utils.reports.figure_style import (
    BLACK,
    COLORS,
    GREY,
    MARKERS,
    WIDTH,
    Paint,
    tidy,
    write_figures,
)
from utils.reports.layer_figures import paint_layers
from utils.runs.atomic_write import write_csv
from utils.runs.json_files import read_json
from utils.runs.notes import note
from utils.runs.options import option
from utils.runs.schema import OBJECT

Points = Sequence[Mapping[str, Any]]

_APART = 1.5  # percent of the MACs between points that would cover each other
_PUBLISHED = {  # method: marker (and line), colour
    "HRank": ("D-", BLACK),
    "HRankPlus": ("s", GREY),
    "L1": ("^", GREY),
    "GAL": ("v", GREY),
    "ABCPruner": ("<", GREY),
    "FilterSketch": (">", GREY),
    "CHIP": ("P", GREY),
    "NORTON": ("*", GREY),
}


@dataclass(frozen=True)
class FigureOptions:
    """What `compare` draws."""

    figures: Path | None = option(
        None,
        "folder for figures: accuracy and latency against MACs, with their points in .csv files, "
        "and the layers of every run",
        metavar="FOLDER",
        group="figures",
    )
    evaluated: tuple[Path, ...] = option(
        (),
        "what `evaluate --against CKPT --json` printed, in files, for the figure of latency",
        metavar="FILE,...",
        group="figures",
    )

    def __post_init__(self) -> None:
        if self.evaluated and self.figures is None:
            raise ValueError(f"--evaluated {self.evaluated[0]} without --figures: expected both")


def write_comparison(
    options: FigureOptions, networks: Iterable[str], summaries: Sequence[Mapping[str, Any]]
) -> None:
    """Write the figures of the `networks` of these names and of the runs of `prune` in `summaries`.

    Raises:
        ValueError: a file of `options.evaluated` is not what `evaluate --against` prints.
    """
    points: dict[str, Points] = {}
    paints: dict[str, Paint] = {}
    for network in networks:
        name = f"accuracy_{network}"
        points[name] = accuracy_points(network, summaries)
        paints[name] = partial(_accuracy, network=network, points=points[name])
    latencies = [point for summary in summaries for point in latency_points(summary)]
    for path in options.evaluated:
        latencies += evaluated_points(path.stem, _evaluated(path))
    if latencies:
        points["latency"], paints["latency"] = latencies, partial(_latency, points=latencies)
    for summary in summaries:
        name = f"layers_{summary['arch']}_{Path(summary['job_dir']).name}"
        paints[name] = partial(paint_layers, summary=summary)
    for name, rows in points.items():
        write_csv(options.figures / f"{name}.csv", rows)
    write_figures({options.figures / f"{name}.png": paint for name, paint in paints.items()})
    note(f"the figures' points are in {options.figures}/*.csv")


def _evaluated(path: Path) -> Mapping[str, Any]:
    found = read_json(path, OBJECT, "a file of JSON for --evaluated")
    if "against" not in found:
        raise ValueError(
            f"--evaluated {path}: expected what `evaluate --against CKPT --json` prints"
        )
    return found


def _accuracy(figure: Any, network: str, points: Points) -> None:
    """Top-1, and its difference to the own dense network: what was published, and each run."""
    figure.set_size_inches(WIDTH, 5.5)
    axes = figure.subplots(1, 2, sharex=True)
    published = [point for point in points if point["state"] == "published"]
    for method, rows in groupby(published, itemgetter("method")):
        _published(axes, sorted(rows, key=itemgetter("macs_percent")), *_PUBLISHED[method])
    runs = [
        {point["state"]: point for point in states}
        for _, states in groupby((p for p in points if p not in published), itemgetter("source"))
    ]
    tuned = [states["fine-tuned"]["macs_percent"] for states in runs]
    for number, (states, place) in enumerate(zip(runs, side_by_side(tuned), strict=True)):
        look = {"marker": MARKERS[number % len(MARKERS)], "color": COLORS[number % len(COLORS)]}
        _run(axes, states, look, shift=place - tuned[number])
    axes[1].axhline(0, color=BLACK, linewidth=0.8)
    axes[0].set_ylabel("top-1 accuracy, %")
    axes[1].set_ylabel("top-1 less that of its own dense network, points")
    for axis in axes:
        axis.set_xlim(0, 105)
        axis.set_xlabel("MACs left, % of its dense network's (equal: side by side)", fontsize=9)
        tidy(axis)
    figure.suptitle(
        f"{network}, pruned and fine-tuned: published (black, grey) and measured here (coloured, "
        "bars: 95%)\n"
        "MACs here: by HRank's rule (filled) and physical (hollow); published: by their own count",
        fontsize=10,
    )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)


def _published(axes: Any, rows: Points, style: str, color: str) -> None:
    for axis, value in zip(axes, ("top1_percent", "difference"), strict=True):
        known = [row for row in rows if row[value] is not None]
        places, heights = [r["macs_percent"] for r in known], [r[value] for r in known]
        axis.plot(
            places, heights, style, color=color, markersize=5, linewidth=1, label=rows[0]["method"]
        )


def side_by_side(places: Sequence[float]) -> list[float]:
    """Return the places, those that are the same to a tenth moved apart around where they are."""
    rounded = [round(place, 1) for place in places]
    before = [rounded[:number].count(place) for number, place in enumerate(rounded)]
    return [
        place + _APART * (before[number] - (rounded.count(rounded[number]) - 1) / 2)
        for number, place in enumerate(places)
    ]


def _run(
    axes: Any, states: Mapping[str, Mapping[str, Any]], look: Mapping[str, str], shift: float
) -> None:
    """Draw the dense and the fine-tuned network with their intervals, `shift` percent aside."""
    dense, tuned = states["dense"], states["fine-tuned"]
    before = states["before fine-tuning"]["top1_percent"]
    label = (
        f"{tuned['row']} ({tuned['method']}): {tuned['images']:,} test images, "
        f"{before:.1f}% before fine-tuning"
    )
    for axis, value in zip(axes, ("top1_percent", "difference"), strict=True):
        for point in (dense, tuned):
            below = point["top1_percent"] - point["low_percent"]
            above = point["high_percent"] - point["top1_percent"]
            axis.errorbar(
                point["macs_percent"] + shift,
                point[value],
                [[below], [above]],
                **look,
                capsize=3,
                markersize=8,
                label=label if point is tuned else None,
            )
        places = [tuned[rule] + shift for rule in ("macs_percent", "physical_macs_percent")]
        axis.plot(places, [tuned[value]] * 2, ":", color=look["color"])
        hollow = {"markerfacecolor": "white", "linestyle": "", "markersize": 8}
        axis.plot(places[1], tuned[value], **look, **hollow)


def _latency(figure: Any, points: Points) -> None:
    """Time against MACs, both in percent of the dense network; a marker for each setting."""
    figure.set_size_inches(WIDTH, 5.5)
    axis = figure.subplots()
    axis.plot((0, 100), (0, 100), "--", color=GREY, label="as much faster as smaller")
    axis.axhline(100, color=BLACK, linewidth=0.8, label="no faster")
    colors = dict(zip(dict.fromkeys(p["row"] for p in points), COLORS * len(points), strict=False))
    settings = dict.fromkeys((p["batch_size"], p["threads"]) for p in points)
    markers = dict(zip(settings, MARKERS * len(points), strict=False))
    places = side_by_side([point["physical_macs_percent"] for point in points])
    for point, place in zip(points, places, strict=True):
        setting = (point["batch_size"], point["threads"])
        percent = point["latency_percent"]
        axis.errorbar(
            place,
            percent,
            [[percent - point["p10_percent"]], [point["p90_percent"] - percent]],
            color=colors[point["row"]],
            marker=markers[setting],
            capsize=3,
            markersize=8,
            linestyle="",
            label=f"{point['row']}: batch of {setting[0]}, threads: {setting[1]}",
        )
    axis.set_xlabel("MACs left, physical, % of the dense network's (equal: side by side)")
    axis.set_ylabel("time of a forward pass, % of the dense network's")
    axis.set(xlim=(0, 105), ylim=(0, None))
    tidy(axis)
    devices = "; ".join(dict.fromkeys(point["device"] for point in points))
    axis.set_title(
        "Is a smaller network as much faster? Medians; bars: 10th to 90th percentile\n" + devices,
        fontsize=10,
    )
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
