"""What was measured beside what was published, with the differences computed."""

from utils.metrics.accuracy import Accuracy
from utils.paper.printed_number import PrintedNumber
from utils.paper.tables import PaperRow

EXACT = "exact to the printed digits"
NO_RATES = "no rates known"
NEEDS_RANKS = "needs ranks"


def compare_row(
    row: PaperRow, macs: int, parameters: int, accuracy: Accuracy | None = None
) -> dict:
    """One published row beside our numbers, as plain JSON values.

    `macs` and `parameters` are by the publication's rule. Each of `macs`, `parameters` and
    `top1_percent` (None without an `accuracy`) holds what was published, what was measured, their
    difference and a verdict. The overall verdict is on MACs and parameters alone: they are
    arithmetic, and accuracy is training.
    """
    found = {
        "macs": _compare_count(row.macs, macs),
        "parameters": _compare_count(row.parameters, parameters),
    }
    return {
        **_facts(row),
        **found,
        "top1_percent": None if accuracy is None else _compare_top1(row.top1_percent, accuracy),
        "verdict": _overall({name: entry["verdict"] for name, entry in found.items()}),
    }


def row_without_rates(row: PaperRow) -> dict:
    """A row that nothing can be compared with, in the form of `compare_row`; its note says why."""
    nothing = {"measured": None, "difference": None, "verdict": NO_RATES}
    return {
        **_facts(row),
        "macs": {"published": row.macs.text, **nothing},
        "parameters": {"published": row.parameters.text, **nothing},
        "top1_percent": None,
        "verdict": NO_RATES,
    }


def _facts(row: PaperRow) -> dict:
    return {
        "publication": row.publication,
        "arch": row.arch,
        "row": row.row,
        "source": row.source,
        "compress_rate": row.compress_rate,
        "compress_rate_source": row.compress_rate_source,
        "note": row.note,
    }


def _compare_count(published: PrintedNumber, measured: int) -> dict:
    difference = int(published.difference(measured))
    percent = 100 * difference / float(published.value)
    differs = f"differs by {difference:+,} ({percent:+.2f}%)"
    return {
        "published": published.text,
        "measured": measured,
        "difference": difference,
        "verdict": EXACT if published.agrees_with(measured) else differs,
    }


def _compare_top1(published: PrintedNumber, accuracy: Accuracy) -> dict:
    """Top-1 in percent; its difference is in points, to be read with the interval beside it."""
    low, high = accuracy.interval_percent()
    difference = float(published.difference(accuracy.top1_percent))
    where = "inside" if low <= float(published.value) <= high else "outside"
    differs = (
        f"differs by {difference:+.2f} points, the published one {where} "
        f"the 95% interval of {accuracy.images:,} images"
    )
    return {
        "published": published.text,
        "measured": accuracy.top1_percent,
        "interval_percent": [low, high],
        "difference": difference,
        "verdict": EXACT if published.agrees_with(accuracy.top1_percent) else differs,
    }


def _overall(verdicts: dict[str, str]) -> str:
    if set(verdicts.values()) == {EXACT}:
        return EXACT
    return ", ".join(f"{name}: {verdict}" for name, verdict in verdicts.items())
