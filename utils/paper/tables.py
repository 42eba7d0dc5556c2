"""The rows of HRank's published tables, read from facts.json."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.paper.printed_number import PrintedNumber

_FACTS = Path(__file__).with_name("facts.json")


@dataclass(frozen=True)
class PaperRow:
    """One row of a published table, and where its numbers and its rates come from.

    `macs` is what the paper calls FLOPs. `compress_rate` is None where no rates are known to
    belong to the row; `note` says where the publication contradicts itself or its own code.
    """

    arch: str
    row: str
    source: str
    macs: PrintedNumber
    macs_removed_percent: PrintedNumber
    parameters: PrintedNumber
    top1_percent: PrintedNumber
    compress_rate: str | None
    compress_rate_source: str | None
    note: str | None


def rows_of(arch: str) -> tuple[PaperRow, ...]:
    """The published rows of a network, baseline first, in table order; none if it has none."""
    facts = json.loads(_FACTS.read_text(encoding="utf-8"))
    return tuple(_paper_row(fact) for fact in facts["rows"] if fact["arch"] == arch)


def matching_row(
    arch: str, rates: Sequence[float], *, expand: Callable[[str], Sequence[float]]
) -> PaperRow | None:
    """The row that was published for these compress rates, or None.

    `expand` turns a compress-rate string into the rate of each conv, the way `rates` came about.
    Where two rows have the same rates, the later is the authors' correction, and is returned.
    """
    matches = [
        row
        for row in rows_of(arch)
        if row.compress_rate is not None and list(expand(row.compress_rate)) == list(rates)
    ]
    return matches[-1] if matches else None


def _paper_row(fact: dict) -> PaperRow:
    printed = {name: PrintedNumber(text) for name, text in fact["published"].items()}
    return PaperRow(**{key: value for key, value in fact.items() if key != "published"}, **printed)
