"""How the figures look and how they are written, where matplotlib is installed."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.runs.atomic_write import atomic_open
from utils.runs.notes import note

# Okabe and Ito's colours, which all kinds of eyes tell apart; a marker of its own goes with each.
BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
PURPLE, SKY, BLACK, GREY = "#cc79a7", "#56b4e9", "#000000", "#767676"
COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 9.0  # inches; at 150 dots an inch, shown at 900 pixels, 10 points are easy to read
_DPI = 150
_MOST_NAMES = 60  # as many stand side by side below a figure

Paint = Callable[[Any], None]  # draws onto an empty matplotlib.figure.Figure, WIDTH x 4 inches


def write_figures(figures: Mapping[Path, Paint]) -> None:
    """Write each figure as a PNG file to its path; without matplotlib, say so and write none.

    A paint may change the figure's size. No pyplot: neither a window nor a setting is touched.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from PIL import Image
    except ImportError:
        note("no figures: matplotlib is not installed (pip install matplotlib)")
        return
    for path, paint in figures.items():
        figure = Figure(figsize=(WIDTH, 4), dpi=_DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        paint(figure)
        canvas.draw()
        pixels = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())
        with atomic_open(path) as file:  # 256 colours do, and take a third of the bytes
            pixels.convert("RGB").quantize(dither=Image.Dither.NONE).save(file, "png")


def tidy(axis: Any) -> None:
    """Give a panel a light grid behind its points, and no frame above and on the right."""
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def count_in_whole_numbers(*axes: Any) -> None:
    """Mark whole numbers alone along an x or y axis."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def name_places(axis: Any, names: Sequence[str]) -> None:
    """Write names upright below 0, 1, 2, ...; of very many, every second or third."""
    step = math.ceil(len(names) / _MOST_NAMES)
    axis.set_xticks(range(0, len(names), step), names[::step], rotation=90, fontsize=7)
