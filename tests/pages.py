"""The pages as tests read them: their text, code, command lines, headings and links."""

import re
from pathlib import Path

from utils.paper.pages import ROOT, pages

TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in pages()}
_BLOCK = re.compile(r"<!-- (\w+): begin -->.*?<!-- \1: end -->", re.DOTALL)
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
_INDENTED = re.compile(r"^ {4}python ((?:main|rank_generation)\.py\b.*)$", re.MULTILINE)
_INLINE = re.compile(r"`(?:python )?((?:main|rank_generation)\.py [^`]*)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def python_code() -> list[str]:
    """Return the Python code on all pages."""
    return [code for text in TEXTS.values() for code in _PYTHON.findall(text)]


def command_lines() -> list[str]:
    """Return the commands on all pages, the door first, each once; generated blocks' too."""
    found = []
    for text in TEXTS.values():
        joined = text.replace("\\\n", " ")
        found += [*_INDENTED.findall(joined), *_INLINE.findall(_BLOCK.sub("", joined))]
    plain = (" ".join(re.split("[#>]", line)[0].split()) for line in found)
    return [line for line in dict.fromkeys(plain) if "COMMAND" not in line]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _PYTHON.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def links(text: str) -> list[str]:
    """Return what the links and images of a page lead to, but for addresses on the web."""
    return [to for to in _LINK.findall(text) if not to.startswith(("http://", "https://"))]


def prose(text: str) -> list[str]:
    """Return the lines of a page that are written by hand: no blocks, tables, code or headings."""
    by_hand = re.sub(r"```.*?```", "", _BLOCK.sub("", text), flags=re.DOTALL)
    return [
        line for line in by_hand.splitlines() if line and not line.startswith(("|", "    ", "#"))
    ]


def target(page: str, link: str) -> tuple[Path, str]:
    """Return the file that a link on a page leads to, and the anchor in it."""
    path, _, anchor = link.partition("#")
    here = ROOT / page
    return (here.parent / path).resolve() if path else here, anchor
