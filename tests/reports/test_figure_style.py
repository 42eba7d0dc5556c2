"""Figures: how they are written, and what is said where matplotlib is missing."""

import sys

import numpy as np
import pytest
from PIL import Image

from utils.reports.figure_style import COLORS, MARKERS, WIDTH, name_places, write_figures


def without_matplotlib(monkeypatch):
    """Let every import of matplotlib fail, as where it is not installed."""
    for name in [*(name for name in sys.modules if name.startswith("matplotlib")), "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)


def test_a_figure_is_a_png_of_its_size_and_pyplot_is_not_touched(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)

    def paint(figure):
        figure.set_size_inches(WIDTH, 2)
        axis = figure.subplots()
        for place, (color, marker) in enumerate(zip(COLORS, MARKERS, strict=True)):
            axis.plot(place, place, marker, color=color, markersize=8)

    write_figures({tmp_path / "a" / "figure.png": paint, tmp_path / "empty.png": lambda _: None})
    with Image.open(tmp_path / "a" / "figure.png") as image:
        assert (image.format, image.size) == ("PNG", (1350, 300))
        painted = all_colors(image)
    for color in COLORS:
        wanted = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
        assert min(max(map(abs, np.subtract(found, wanted))) for found in painted) <= 4, color
    with Image.open(tmp_path / "empty.png") as image:
        assert image.size == (1350, 600) and len(all_colors(image)) == 1
    assert "matplotlib.pyplot" not in sys.modules


def all_colors(image):
    return [color for _, color in image.convert("RGB").getcolors(image.width * image.height)]


def test_without_matplotlib_a_hint_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    without_matplotlib(monkeypatch)
    write_figures({tmp_path / "figure.png": lambda figure: pytest.fail("painted")})
    hint = "no figures: matplotlib is not installed (pip install matplotlib)\n"
    assert capsys.readouterr().err == hint and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (60, 60), (61, 31), (109, 55)])
def test_of_very_many_names_every_second_is_written(count, shown):
    figures = pytest.importorskip("matplotlib.figure")
    axis = figures.Figure().subplots()
    name_places(axis, [f"conv{number}" for number in range(count)])
    step = -(-count // 60)
    names = [label.get_text() for label in axis.get_xticklabels()]
    assert names == [f"conv{number}" for number in axis.get_xticks()] and len(names) == shown
    assert list(axis.get_xticks()) == list(range(0, count, step))
