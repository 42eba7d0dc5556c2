"""Hints for a word that nobody knows: the known one that it is nearest to."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" with the known word that `word` is like, "" where none is."""
    names = [str(name) for name in known]
    same = [name for name in names if name.lower() == word.lower()]
    nearest = same or difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
