"""Pruned networks that were published, by HRank and by others, as points: MACs left and top-1."""

import json
from dataclasses import dataclass
from pathlib import Path

from utils.paper.printed_number import PrintedNumber
from utils.paper.tables import PaperRow, rows_of

_OTHERS = Path(__file__).with_name("other_methods.json")


@dataclass(frozen=True)
class PublishedPoint:
    """A published network: the MACs that it keeps of its dense one's, by its publication's count.

    `difference` is its top-1 less its own dense network's, in points; None where that is not said.
    """

    method: str
    row: str
    macs_percent: float
    top1_percent: float
    difference: float | None
    source: str


def published_points(name: str) -> list[PublishedPoint]:
    """Return what was published of a network: HRank's and HRankPlus's rows, then other methods'."""
    points = []
    for layout in ("hrank", "hrankplus"):
        rows = rows_of(name, layout)
        points += [_of_row(row, dense=rows[0]) for row in rows]
    others = json.loads(_OTHERS.read_text(encoding="utf-8"))["rows"]
    return points + [_of_other(fact) for fact in others if fact["arch"] == name]


def _of_row(row: PaperRow, dense: PaperRow) -> PublishedPoint:
    return PublishedPoint(
        row.publication,
        row.row,
        float(100 * row.macs.value / dense.macs.value),
        float(row.top1_percent.value),
        float(row.top1_percent.value - dense.top1_percent.value),
        row.source,
    )


def _of_other(fact: dict) -> PublishedPoint:
    printed = {name: PrintedNumber(text).value for name, text in fact["published"].items()}
    top1, dense = printed["top1_percent"], printed.get("dense_top1_percent")
    return PublishedPoint(
        fact["method"],
        fact["row"],
        float(100 - printed["macs_removed_percent"]),
        float(top1),
        None if dense is None else float(top1 - dense),
        fact["source"],
    )
