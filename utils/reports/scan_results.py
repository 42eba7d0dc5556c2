"""What a sensitivity scan leaves behind: the summary, its tables, and the figure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby, takewhile
from statistics import fmean
from typing import Any

from utils.metrics.accuracy import Accuracy
from utils.metrics.cost import Cost, counts
from utils.options.weight_options import pruned_by
from utils.paper.markdown import millions, table
from utils.pruning.sensitivity import ScanPoint, unit_name
from utils.reports.scan_figures import write_scan_figures
from utils.runs.atomic_write import write_csv, write_json, write_text
from utils.runs.job_folder import JobFolder


def scan_summary(dense: Accuracy, cost: Cost, points: Sequence[ScanPoint]) -> dict[str, Any]:
    """Return the points of every unit beside the dense network, the units in the points' order.

    A unit's `mean_drop` is the dense accuracy minus the mean over the rates, in percentage points;
    `within_interval` the highest rate up to which all accuracies stay in the dense one's 95%
    interval, None where the lowest rate leaves it.
    """
    low, _ = dense.interval_percent()
    units = []
    for layers, members in groupby(points, key=lambda point: point.layers):
        found = [(x.rate, Accuracy(x.correct, x.images, x.loss), x) for x in members]
        inside = list(takewhile(lambda entry: entry[1].top1_percent >= low, found))
        units.append(
            {
                "name": unit_name(layers),
                "layers": list(layers),
                "channels": found[0][2].channels,
                "mean_drop": dense.top1_percent - fmean(x[1].top1_percent for x in found),
                "within_interval": inside[-1][0] if inside else None,
                "points": [_plain(point, accuracy) for _, accuracy, point in found],
            }
        )
    return {"dense": {**dense.as_dict(), **counts(cost)}, "units": units}


def _plain(point: ScanPoint, accuracy: Accuracy) -> dict[str, Any]:
    row = {**asdict(point), **accuracy.as_dict()}
    return {name: value for name, value in row.items() if name not in ("layers", "channels")}


def write_scan(job: JobFolder, summary: Mapping[str, Any]) -> None:
    """Write scan.csv, the figures, summary.md and, last, summary.json."""
    rows = [
        {"layers": " ".join(unit["layers"]), "channels": unit["channels"]}
        | {name: value for name, value in point.items() if name != "interval_percent"}
        for unit in summary["units"]
        for point in unit["points"]
    ]
    write_csv(job.path / "scan.csv", rows)
    write_scan_figures(job.path, summary)
    write_text(job.summary_markdown, scan_markdown(summary))
    write_json(job.summary_json, summary)


def scan_markdown(summary: Mapping[str, Any]) -> str:
    """Return the table of accuracies, layers by rates, the most sensitive layer first."""
    dense, units = summary["dense"], summary["units"]
    options = summary["options"]
    low, high = dense["interval_percent"]
    rates = [point["rate"] for point in units[0]["points"]]
    what, criterion = pruned_by(options)
    if what == "weights":
        saved, whole, unit_of_saved = "removed", sum(unit["channels"] for unit in units), "weights"
    else:
        saved, whole, unit_of_saved = "macs_removed", dense["macs"], "MACs"
    header = ("layer", what, *(f"{rate:g}" for rate in rates))
    header += ("mean drop", "in the interval up to", f"{unit_of_saved} at {rates[-1]:g}")
    in_order = sorted(units, key=lambda unit: -unit["mean_drop"])
    rows = [
        (
            unit["name"],
            unit["channels"],
            *(f"{point['top1_percent']:.1f}" for point in unit["points"]),
            f"{unit['mean_drop']:.2f}",
            "-" if unit["within_interval"] is None else f"{unit['within_interval']:g}",
            f"-{100 * unit['points'][-1][saved] / whole:.2f}%",
        )
        for unit in in_order
    ]
    tied = [f"- {unit['name']}: {', '.join(unit['layers'])}" for unit in units]
    tied = [line for line, unit in zip(tied, units, strict=True) if len(unit["layers"]) > 1]
    parts = [
        f"# {summary['arch']}: sensitivity by {criterion}",
        f"Top-1 accuracy in percent when a layer loses that share of its {what}, the others "
        f"whole, without fine-tuning. Dense: {dense['top1_percent']:.1f}%, {dense['correct']} of "
        f"{dense['images']} images of {summary['dataset']} (95% interval {low:.1f} to {high:.1f}); "
        f"one image is {100 / dense['images']:.2g} points.",
        table(header, rows),
        f"*Mean drop*: dense minus the mean over the rates, in points. *{unit_of_saved}*: of the "
        f"whole network's {millions(whole)}" + (", physical." if what == "filters" else "."),
        *_recalibrated(in_order, options.get("recalibrate", 0)),
        *(["Tied layers:\n\n" + "\n".join(tied)] if tied else []),
    ]
    return "\n\n".join(parts) + "\n"


def _recalibrated(units: Sequence[Mapping[str, Any]], images: int) -> list[str]:
    """Return the table of what is right once the norms' statistics are re-estimated."""
    if not images:
        return []
    points = units[0]["points"]
    rows = [
        (
            unit["name"],
            *(f"{100 * x['recalibrated_correct'] / x['images']:.1f}" for x in unit["points"]),
        )
        for unit in units
    ]
    header = ("layer", *(f"{point['rate']:g}" for point in points))
    said = f"Recalibrated: the norms' statistics re-estimated from at most {images} train images."
    return [said, table(header, rows)]
