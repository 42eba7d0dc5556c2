"""A number as a paper prints it, and whether a computed one agrees with its digits."""

import re
from dataclasses import dataclass
from decimal import Decimal

_PRINTED = re.compile(r"(?P<digits>\d+(\.(?P<fraction>\d+))?)(?P<unit>[MB]?)")
_UNITS = {"": 1, "M": 10**6, "B": 10**9}


@dataclass(frozen=True)
class PrintedNumber:
    """A published number, kept as its text: "62.72M", "1.52B" or "93.50" (M = 1e6, B = 1e9).

    The text tells how many digits were printed, which a float forgets.

    Raises:
        ValueError: the text is not digits with an optional fraction and unit.
    """

    text: str

    def __post_init__(self):
        if _PRINTED.fullmatch(self.text) is None:
            raise ValueError(
                f"printed number: expected one like 62.72M or 93.50, got {self.text!r}"
            )

    @property
    def value(self) -> Decimal:
        """The number printed: 62720000 for "62.72M"."""
        match = _PRINTED.fullmatch(self.text)
        return Decimal(match["digits"]) * _UNITS[match["unit"]]

    @property
    def step(self) -> Decimal:
        """What one unit in the last printed digit is worth: 10000 for "62.72M"."""
        match = _PRINTED.fullmatch(self.text)
        return Decimal(10) ** -len(match["fraction"] or "") * _UNITS[match["unit"]]

    def agrees_with(self, number: int | float) -> bool:
        """Whether `number`, rounded or truncated to the printed digits, is what was printed.

        The papers mix both, so 62,715,530 agrees with "62.72M" and 538,175 with "0.53M". A tie
        may be rounded either way.
        """
        rest = _exact(number) - self.value
        rounded = abs(rest) <= self.step / 2
        truncated = 0 <= rest < self.step
        return rounded or truncated

    def difference(self, number: int | float) -> Decimal:
        """`number` less the printed one, in full units."""
        return _exact(number) - self.value


def _exact(number: int | float) -> Decimal:
    """The decimal that the number prints as: 93.17 is 93.17 here, not the nearest binary one."""
    return Decimal(str(number))
