"""Progress bars: for who watches a terminal, and none in a log."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_DELAY_SECONDS = 1.0  # what takes no longer shows none


def bar(
    items: Iterable[Any] | None = None,
    *,
    desc: str,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    leave: bool = True,
) -> tqdm:
    """Return a bar on standard error, over `items` or, without, updated by the caller.

    It is `disable`d where standard error is no terminal. With `leave` it stays when it is done.
    """
    how = {"disable": None, "delay": _DELAY_SECONDS, "mininterval": 0.5}
    return tqdm(items, desc, total, unit=unit, initial=initial, leave=leave, **how)
