"""Generated blocks of README.md: the text between two markers."""

from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def with_block(readme: str, name: str, text: str) -> str:
    """Return the README with the block called `name` holding `text`.

    Raises:
        ValueError: if a marker is missing.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in readme or end not in readme:
        raise ValueError(f"README.md lacks a marker: expected {begin} and {end}")
    before, rest = readme.split(begin, 1)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}"
