"""The README's results are what the committed summaries say."""

import json
from pathlib import Path

import pytest

from utils.paper import measured

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_holds_the_table_of_the_summaries():
    text = README.read_text()
    assert measured.updated(text) == text


def test_a_readme_without_markers_is_refused():
    with pytest.raises(
        ValueError, match=r"README.md lacks a marker: expected <!-- measured: begin"
    ):
        measured.updated("# nothing here")


def test_summaries_name_no_place_of_the_machine_they_were_made_on():
    for path in measured.FOLDER.glob("*.json"):
        words = json.dumps(json.loads(path.read_text()))
        assert '"/' not in words, path.name
