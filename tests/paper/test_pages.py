"""Generated blocks lie between markers, each on one page."""

import pytest

from utils.paper import pages

PAGE = "# Speed\n\n<!-- speed: begin -->\nold\n<!-- speed: end -->\n\nafter\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository of two pages, the second with a block called `speed`."""
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "utils" / "metrics").mkdir(parents=True)
    (tmp_path / "README.md").write_text("# Top\n")
    (tmp_path / "utils" / "metrics" / "README.md").write_text(PAGE)
    return tmp_path


def test_a_block_is_read_and_written_on_whichever_page_it_is(root):
    assert pages.read_block("speed") == "old"
    pages.write_block("speed", "new\n\n| x |")
    assert pages.read_block("speed") == "new\n\n| x |"
    page = root / "utils" / "metrics" / "README.md"
    assert page.read_text() == PAGE.replace("old", "new\n\n| x |")
    (root / "README.md").write_text(page.read_text())
    page.write_text("# Speed\n")
    pages.write_block("speed", "old")
    assert (root / "README.md").read_text() == PAGE


def test_a_block_that_is_nowhere_or_not_closed_or_twice_is_refused(root):
    with pytest.raises(ValueError, match="0 pages have the marker <!-- size: begin -->: expected"):
        pages.write_block("size", "")
    (root / "README.md").write_text("<!-- size: begin -->\n")
    with pytest.raises(ValueError, match="README.md lacks the marker <!-- size: end -->"):
        pages.read_block("size")
    (root / "README.md").write_text(PAGE)
    with pytest.raises(ValueError, match="2 pages have the marker <!-- speed: begin -->: expected"):
        pages.read_block("speed")
