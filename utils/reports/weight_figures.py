"""The figure of fine-grained pruning: how the weights are distributed, before and after."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.reports.figure_style import BLUE, VERMILION, tidy, write_figures

_BINS, _MOST_COLUMNS = 61, 6
_PANEL = (1.75, 1.5)  # inches


def write_weight_figure(
    path: Path, network: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> None:
    """Write a histogram of each layer's weights, all of before and the nonzeros of after.

    Both are {layer: weight}. Without matplotlib, say so.
    """

    def paint(figure: Any) -> None:
        columns = min(_MOST_COLUMNS, max(3, math.ceil(len(before) ** 0.5)))
        rows = math.ceil(len(before) / columns)
        figure.set_size_inches(_PANEL[0] * columns + 0.3, _PANEL[1] * rows + 0.8)
        grid = figure.subplots(rows, columns, squeeze=False).flatten()
        for axis in grid[len(before) :]:
            axis.set_axis_off()
        for axis, (layer, weights) in zip(grid, before.items(), strict=False):
            _paint_layer(axis, layer, weights.flatten().cpu(), after[layer].flatten().cpu())
        figure.suptitle(
            f"{network}: weights of each layer (name: share that is zero)\n"
            "line: before pruning; filled: the nonzero ones, pruned and fine-tuned",
            fontsize=10,
        )
        figure.supylabel("weights", fontsize=10)

    write_figures({path: paint})


def _paint_layer(axis: Any, layer: str, before: Tensor, after: Tensor) -> None:
    left = after[after != 0]
    widest = max(float(before.abs().max()), float(after.abs().max())) or 1.0
    bins = {"bins": _BINS, "range": (-widest, widest)}
    axis.hist(left.numpy(), color=BLUE, histtype="stepfilled", **bins)
    axis.hist(before.numpy(), color=VERMILION, histtype="step", linewidth=1, **bins)
    axis.set_title(f"{layer}: {1 - len(left) / len(after):.0%}", fontsize=8)
    axis.tick_params(labelsize=7)
    tidy(axis)
