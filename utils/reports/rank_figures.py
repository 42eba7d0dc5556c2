"""The figures of a rank report, drawn where matplotlib is installed."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.rank.rank_study import mean_ranks_by_batch
from utils.reports.figure_style import (
    BLUE,
    GREEN,
    ORANGE,
    WIDTH,
    count_in_whole_numbers,
    tidy,
    write_figures,
)

PANELS = 6  # layers that the figure of mean ranks by batch shows


def write_rank_figures(
    folder: Path, ranks: Mapping[str, Tensor], summary: Mapping[str, Any], batch_size: int
) -> None:
    """Write mean_ranks.png, noise.png, cuts.png and choices.png; without matplotlib, say so.

    `ranks` is {conv: [images, filters]}; `summary` holds the numbers of the other three.
    """

    def paint_mean_ranks(figure: Any) -> None:
        _mean_ranks(figure, ranks, summary["arch"], batch_size)

    write_figures(
        {
            folder / "mean_ranks.png": paint_mean_ranks,
            folder / "noise.png": lambda figure: _noise(figure, ranks, summary),
            folder / "cuts.png": lambda figure: _cuts(figure, summary),
            folder / "choices.png": lambda figure: _choices(figure, summary),
        }
    )


def _mean_ranks(figure: Any, ranks: Mapping[str, Tensor], network: str, batch_size: int) -> None:
    """Mean rank of every filter (columns) in each whole batch (rows), for layers along the way."""
    convs = list(ranks)
    batch_size = min(batch_size, len(ranks[convs[0]]))
    chosen = dict.fromkeys(convs[round(k * (len(convs) - 1) / (PANELS - 1))] for k in range(PANELS))
    figure.set_size_inches(WIDTH, 6)
    axes = figure.subplots(math.ceil(len(chosen) / 3), 3, squeeze=False).flatten()
    for axis in axes[len(chosen) :]:
        axis.set_axis_off()
    for axis, conv in zip(axes, chosen, strict=False):
        means = mean_ranks_by_batch(ranks[conv], batch_size)
        batches, filters = means.shape
        image = axis.imshow(
            means.numpy(),
            aspect="auto",
            cmap="viridis",
            interpolation="nearest",
            extent=(-0.5, filters - 0.5, batches + 0.5, 0.5),
        )
        count_in_whole_numbers(axis.xaxis, axis.yaxis)
        axis.set(title=conv, xlabel="filter", ylabel="batch")
        figure.colorbar(image, ax=axis, label="mean rank")
    figure.suptitle(
        f"{network}: mean rank of every filter in every batch of {batch_size} images "
        "(each layer has its own colours)",
        fontsize=11,
    )


def _noise(figure: Any, ranks: Mapping[str, Tensor], summary: Mapping[str, Any]) -> None:
    """How much the scores of a layer's filters differ, beside how well they are known."""
    layers, images = summary["layers"], summary["images"]
    axis = figure.subplots()
    numbers = range(1, len(layers) + 1)
    for number, layer in enumerate(layers, start=1):
        deviations = ranks[layer["conv"]][:images].double().std(0)  # [C]
        label = "rank of one filter, over images" if number == 1 else None
        places = [number] * len(deviations)
        axis.plot(places, deviations, ".", color=GREEN, alpha=0.5, markersize=3, label=label)
    spreads = [layer["spread_of_scores"] for layer in layers]
    errors = [layer["standard_error"] for layer in layers]
    axis.plot(numbers, spreads, "o", color=BLUE, label="scores of a layer, over filters")
    axis.plot(numbers, errors, "^", color=ORANGE, label="standard error of a score, layer mean")
    axis.set(yscale="log", xlabel="layer", ylabel="standard deviation, in ranks")
    axis.set_title(
        f"{summary['arch']}: how precisely {images} images measure the scores (mean ranks)\n"
        "where circles are far above triangles, the images tell the layer's filters apart",
        fontsize=10,
    )
    count_in_whole_numbers(axis.xaxis)
    tidy(axis)
    figure.legend(loc="outside lower center", ncols=3)


def _cuts(figure: Any, summary: Mapping[str, Any]) -> None:
    """The gap at every layer's cut, in its standard errors."""
    axis = figure.subplots()
    cuts = [(number, x["cut"]) for number, x in enumerate(summary["layers"], start=1) if x["cut"]]
    kinds = {
        "layers, clear": ("o", BLUE, lambda cut: not cut["inside_noise"]),
        "layers, too close to call": (
            "s",
            GREEN,
            lambda cut: cut["inside_noise"] and not cut["tied"],
        ),
        "layers with a tie": ("X", ORANGE, lambda cut: cut["tied"]),
    }
    for label, (marker, color, belongs) in kinds.items():
        points = [(number, _in_errors(cut)) for number, cut in cuts if belongs(cut)]
        places, widths = zip(*points, strict=True) if points else ((), ())
        axis.plot(places, widths, marker, color=color, label=f"{label} ({len(points)})")
    axis.axhspan(0, 2, color="grey", alpha=0.2, linewidth=0, label="up to 2 standard errors")
    axis.set_yscale("symlog", linthresh=2)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set(xlabel="layer", ylabel="gap, in standard errors")
    axis.set_title(
        f"{summary['arch']}: lowest kept minus highest removed score, {summary['images']} images\n"
        "grey: too close to call, other images may remove other filters (ties: the lower index)",
        fontsize=10,
    )
    count_in_whole_numbers(axis.xaxis)
    tidy(axis)
    axis.legend()


def _in_errors(cut: Mapping[str, Any]) -> float:
    """Return a cut's gap in its standard errors; a gap without any error is not drawn."""
    if cut["tied"]:
        return 0.0
    return cut["gap"] / cut["standard_error"] if cut["standard_error"] else math.inf


def _choices(figure: Any, summary: Mapping[str, Any]) -> None:
    """The share of kept filters that two choices have in common, layer by layer."""
    axis = figure.subplots()
    cut_layers = [(n, layer) for n, layer in enumerate(summary["layers"], start=1) if layer["cut"]]
    numbers = [number for number, _ in cut_layers]
    for name, label, marker, color in (
        ("draws", "two draws of images", "o", BLUE),
        ("augmentation", "plain and augmented", "s", ORANGE),
    ):
        shares = [100 * layer["common"][name] for _, layer in cut_layers]
        axis.plot(numbers, shares, f"{marker}-", color=color, markersize=4, label=label)
    chance = [100 * layer["kept"] / layer["filters"] for _, layer in cut_layers]
    axis.plot(numbers, chance, "k:", label="two random choices")
    axis.set(xlabel="layer", ylabel="kept filters in common, %", ylim=(0, 103))
    axis.set_title(
        f"{summary['arch']}: filters that are kept again, from {summary['images']} other images",
        fontsize=10,
    )
    count_in_whole_numbers(axis.xaxis)
    tidy(axis)
    axis.legend(loc="lower right")
