"""Notes: what a command tells the user beside its result."""

import sys


def note(message: str) -> None:
    """Tell the user something, on standard error."""
    print(message, file=sys.stderr, flush=True)
