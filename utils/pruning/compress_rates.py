"""The compress-rate grammar of the official command lines: `[0.95]+[0.5]*6+[0.9]*4`."""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import groupby

WHOLE = Fraction(1)

# A backslash before the star is what copying from the official README's Markdown leaves behind.
_TERM = re.compile(
    r"(?:\[\s*(?P<square>{0})\s*\]|\(\s*(?P<round>{0})\s*\)|(?P<bare>{0}))"
    r"(?:\s*\\?\*\s*(?P<count>0*\d{{1,4}}))?".format(r"\d+\.?\d*|\.\d+")
)


def parse_rates(text: str) -> list[float]:
    """Return the rates that `text` spells: "[0.1]+[0.6]*2" -> [0.1, 0.6, 0.6].

    Terms are joined by "+"; each is `[rate]`, `(rate)` or `rate`, optionally `*count`. Unlike the
    official parser, which searches inside each term, a term must match as a whole.

    Raises:
        ValueError: naming the term, its position and what was expected.
    """
    rates: list[float] = []
    start = 1
    for number, term in enumerate(text.split("+"), start=1):
        match = _TERM.fullmatch(term.strip())
        rate = float(match["square"] or match["round"] or match["bare"]) if match else 1.0
        if not rate < 1:
            raise ValueError(
                f"compress rate, term {number} (character {start}): "
                "expected [rate] or [rate]*count with 0 <= rate < 1 and count <= 9999, "
                f"got {term.strip()!r}"
            )
        rates += [rate] * int(match["count"] or 1)
        start += len(term) + 1
    return rates


def format_rates(rates: Sequence[float]) -> str:
    """Return the rates in the grammar that `parse_rates` reads: the shortest such string."""
    runs = ((rate, len(list(same))) for rate, same in groupby(rates))
    return "+".join(_decimal(rate) + (f"*{count}" if count > 1 else "") for rate, count in runs)


def _decimal(rate: float) -> str:
    return f"[{Decimal(str(float(rate))):f}]"  # the grammar knows no exponents: 1e-05 is [0.00001]


def fit_rates(rates: Sequence[float], num_layers: int, ignored: int, name: str) -> list[float]:
    """Return one rate per prunable layer; up to `ignored` more at the end are dropped.

    Raises:
        ValueError: if there are too few or too many.
    """
    if not num_layers <= len(rates) <= num_layers + ignored:
        most = f" (or {num_layers + ignored}; the official code ignores the last)" * bool(ignored)
        raise ValueError(
            f"compress rate: {len(rates)} rates for {name}, expected {num_layers}{most}"
        )
    return list(rates[:num_layers])


def num_removed(rate: float, filters: int, part: Fraction = WHOLE) -> int:
    """Return how many of a layer's filters go: n = int(rate * filters), as the official code does.

    On the way there, ceil(part * n): what does not divide goes early, when most of the fine-tuning
    is still to come.

    Raises:
        ValueError: if `rate` is not in [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"compress rate {rate}: expected 0 <= rate < 1")
    return math.ceil(part * int(rate * filters))
