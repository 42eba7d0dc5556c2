"""The pages, README.md here and in the rooms, and their generated blocks: text between markers."""

from pathlib import Path

from utils.runs.atomic_write import write_text

ROOT = Path(__file__).parents[2]
_ROOMS = ("models", "utils/*", "rank_conv", "tests")


def pages() -> list[Path]:
    """Return every README.md, the one at the top first."""
    found = (path for room in _ROOMS for path in sorted(ROOT.glob(f"{room}/README.md")))
    return [ROOT / "README.md", *found]


def read_block(name: str) -> str:
    """Return the text of the block called `name`, on whichever page it is.

    Raises:
        ValueError: no page has the block, or several have.
    """
    return _parted(name)[2]


def write_block(name: str, text: str) -> None:
    """Put `text` into the block called `name`, on whichever page it is.

    Raises:
        ValueError: no page has the block, or several have.
    """
    page, before, _, after = _parted(name)
    write_text(page, f"{before}\n{text}\n{after}")


def _parted(name: str) -> tuple[Path, str, str, str]:
    """Return the page of a block, the page's text before, inside and after it, markers outside."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    having = [page for page in pages() if begin in page.read_text(encoding="utf-8")]
    if len(having) != 1:
        raise ValueError(f"{len(having)} pages have the marker {begin}: expected one README.md")
    before, _, rest = having[0].read_text(encoding="utf-8").partition(begin)
    inside, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{having[0]} lacks the marker {end}")
    return having[0], before + begin, inside.strip("\n"), end + after
