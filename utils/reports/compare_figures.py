"""The figures of `compare`: accuracy and latency against MACs."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from utils.options.compare_options import FigureOptions
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
    """Change of top-1 against the own dense network: what was published, and each run."""
    figure.set_size_inches(WIDTH, 5.5)
    axis = figure.subplots()
    axis.axhline(0, color=BLACK, linewidth=0.8)
    published = [p for p in points if p["state"] == "published" and p["difference"] is not None]
    for method, rows in groupby(published, itemgetter("method")):
        _published(axis, sorted(rows, key=itemgetter("macs_percent")), *_PUBLISHED[method])
    runs = [point for point in points if point["state"] == "fine-tuned"]
    methods = list(dict.fromkeys(run["method"] for run in runs))
    places = side_by_side([run["macs_percent"] for run in runs])
    for run, place in zip(runs, places, strict=True):
        _run(axis, run, place, methods.index(run["method"]))
    axis.set_xlim(0, 105)
    axis.set_xlabel("MACs left, % of the dense network, by HRank's rule or the publication's own")
    axis.set_ylabel("change of top-1 against its own dense network, points")
    tidy(axis)
    figure.suptitle(
        f"{network}, pruned and fine-tuned: what it costs in accuracy\n"
        "Black and grey: published. Colour: measured here, with 95% intervals"
        + " (equal MACs: side by side)"
        * (len(runs) > 1),
        fontsize=10,
    )
    handles, labels = axis.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=4, fontsize=8)


def _published(axis: Any, rows: Points, style: str, color: str) -> None:
    places, heights = zip(*((row["macs_percent"], row["difference"]) for row in rows), strict=True)
    look = {"color": color, "markersize": 5, "linewidth": 1}
    axis.plot(places, heights, style, **look, label=f"{rows[0]['method']} (published)")


def _run(axis: Any, run: Mapping[str, Any], place: float, number: int) -> None:
    """Draw a fine-tuned network with the interval of its accuracy; `number` is its method's."""
    below = run["top1_percent"] - run["low_percent"]
    above = run["high_percent"] - run["top1_percent"]
    axis.errorbar(
        place,
        run["difference"],
        [[below], [above]],
        marker=MARKERS[number % len(MARKERS)],
        color=COLORS[number % len(COLORS)],
        linestyle="",
        capsize=3,
        markersize=9,
        label=run["method"],
    )


def side_by_side(places: Sequence[float]) -> list[float]:
    """Return the places, those that are the same to a tenth moved apart around where they are."""
    rounded = [round(place, 1) for place in places]
    before = [rounded[:number].count(place) for number, place in enumerate(rounded)]
    return [
        place + _APART * (before[number] - (rounded.count(rounded[number]) - 1) / 2)
        for number, place in enumerate(places)
    ]


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
