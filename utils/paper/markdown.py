"""How results are written: Markdown tables that read well as plain text, too, and counts."""

import re
from collections.abc import Sequence
from typing import Any


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table whose columns are aligned for reading as plain text too."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def counted(number: int, noun: str) -> str:
    """Return "1 epoch", "2 epochs", "10,000 images"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def portable(text: str) -> str:
    """Return a text without the folders of files that lie outside of the repository."""
    return re.sub(r"\.\./[^\s']*/", "", text)


def millions(count: float) -> str:
    """Return a count, such as MACs or parameters, in millions; in thousands below 0.1 million."""
    return f"{count / 1e3:.1f}k" if 0 < count < 1e5 else f"{count / 1e6:.2f}M"


def megabytes(size_bytes: int | None) -> str:
    """Return a size in units of 1,000,000 bytes; nothing for None."""
    return "" if size_bytes is None else f"{size_bytes / 1e6:.2f} MB"
