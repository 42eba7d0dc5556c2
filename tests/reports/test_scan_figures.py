"""The grid of a sensitivity scan: which cell says what."""

import math

import pytest
from PIL import Image

from utils.reports.scan_figures import sensitivity_grid, worst_units, write_scan_figures

SUMMARY = {
    "arch": "resnet_8",
    "dataset": "shapes test",
    "options": {"criterion": "l1"},
    "dense": {"top1_percent": 90.0, "interval_percent": [85.0, 94.0], "images": 100},
    "units": [
        {
            "name": "a",
            "channels": 16,
            "points": [{"rate": 0.9, "top1_percent": 40.0}, {"rate": 0.1, "top1_percent": 91.0}],
        },
        {"name": "b (+1)", "channels": 16, "points": [{"rate": 0.1, "top1_percent": 85.0}]},
    ],
}


def test_a_cell_is_the_loss_and_is_marked_below_the_interval():
    rates, losses, below = sensitivity_grid(SUMMARY, SUMMARY["units"])
    assert rates == [0.1, 0.9]
    assert losses[0] == [-1.0, 50.0]
    assert losses[1][0] == 5.0 and math.isnan(losses[1][1])
    assert below == [(0, 1)]  # 85.0 is the interval's own end


def test_the_fifteen_units_that_lose_most_are_shown_worst_first():
    units = [
        {"name": str(lost), "points": [{"rate": 0.5, "top1_percent": 90.0 - lost}]}
        for lost in (3, 1, 2, *range(10, 30))
    ]
    names = [unit["name"] for unit in worst_units({"units": units})]
    assert names == [str(lost) for lost in range(29, 14, -1)]


def test_the_grid_is_as_wide_as_the_other_figures_and_the_curves_have_a_panel_a_unit(tmp_path):
    pytest.importorskip("matplotlib")
    write_scan_figures(tmp_path, SUMMARY)
    with Image.open(tmp_path / "scan.png") as image:
        assert image.width == 1350 and len(set(image.convert("L").tobytes())) > 20
    with Image.open(tmp_path / "scan_curves.png") as image:
        assert image.size == (862, 375)  # three panels side by side, of which one stays empty
