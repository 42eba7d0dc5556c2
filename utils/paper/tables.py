"""The rows of the tables that HRank and HRankPlus published, read from facts.json."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from utils.paper.printed_number import PrintedNumber

_FACTS = Path(__file__).with_name("facts.json")


@dataclass(frozen=True)
class PaperRow:
    """One row of a published table, and where its numbers and its rates come from.

    `publication` is "HRank" or "HRankPlus": whose rates these are, and whose counter was at work.
    `macs` is what the paper calls FLOPs. `compress_rate` is None where no rates are known to
    belong to the row; `compress_rate_source` begins with "search:" or "third party:" where they
    are not the authors' own. `note` says where the publication contradicts itself or its own code.
    """

    publication: str
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
    top5_percent: PrintedNumber | None = None

    @property
    def layout(self) -> str:
        """The layout of the compress rates: "hrank" or "hrankplus"."""
        return self.publication.lower()


@cache
def published_rows() -> tuple[PaperRow, ...]:
    """All published rows: HRank's, then HRankPlus's, network by network in table order."""
    facts = json.loads(_FACTS.read_text(encoding="utf-8"))
    return tuple(_paper_row(fact) for fact in facts["rows"])


def rows_of(name: str, layout: str = "hrank") -> tuple[PaperRow, ...]:
    """The published rows of a network in one layout, baseline first; none if it has none."""
    return tuple(row for row in published_rows() if (row.arch, row.layout) == (name, layout))


def matching_row(
    rows: Iterable[PaperRow], rates: Sequence[float], expand: Callable[[str], Sequence[float]]
) -> PaperRow | None:
    """The one of a network's published rows that has these compress rates, or None.

    `expand` turns a compress-rate string into the rates, the way `rates` came about. Where two
    rows have the same rates, the later is the authors' correction, and is returned.
    """
    matches = [
        row
        for row in rows
        if row.compress_rate is not None and list(expand(row.compress_rate)) == list(rates)
    ]
    return matches[-1] if matches else None


def _paper_row(fact: dict) -> PaperRow:
    printed = {name: PrintedNumber(text) for name, text in fact["published"].items()}
    return PaperRow(**{key: value for key, value in fact.items() if key != "published"}, **printed)
