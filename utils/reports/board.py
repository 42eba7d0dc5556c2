"""What TensorBoard shows of a run, under tags that are the same in every run.

The curves over the epochs (accuracy/, loss/, training/) are the training's own.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from utils.graph.prunable import RankLayer, Site
from utils.options.images import Images
from utils.planning.plan import Planned
from utils.rank.estimation import outputs_of
from utils.reports.board_images import MOST_MAPS, bars, map_grid, picture
from utils.runs.atomic_write import refusals_named
from utils.runs.borrowed_state import evaluating
from utils.runs.log import RunLog, open_events

if TYPE_CHECKING:
    from utils.runs.event_file import EventFile

DENSE, PRUNED, FINETUNED = range(3)  # steps of the histograms of weights
MOST_SITES = 20  # that show their feature maps
_OPTIONS = ("arch", "criterion", "mode", "schedule", "init", "recipe", "lr", "epochs", "seed")
FIGURES = (  # of the table of runs; a ratio is the dense network's divided by the pruned one's
    "top1_percent",
    "top1_percent_dense",
    "top1_points_lost",
    "macs",
    "macs_ratio",
    "parameters",
    "latency_ms",
    "latency_ratio",
)
_LONGEST_RATES = 40  # characters in the table of runs
_MAPS = (
    "One image's feature maps where they are ranked, highest score of the filter first; the score "
    "is below. Each map is scaled to its own lowest (black) and highest value (white)."
)
_BARS = "A bar a conv, in the order of the rates: blue is kept, orange is removed."


def log_plan(
    log: RunLog,
    planned: Planned,
    layers: Sequence[Mapping[str, Any]],
    images: Images,
    criterion: str,
) -> None:
    """Draw the plan and the dense network: what stays, scores, feature maps and weights.

    `layers` are those of the summary. The maps are those of the first test image.
    """
    _log_layers(log, layers)
    log_scores(log, planned.scores)
    dense = planned.dense.model.to(images.device)
    log_feature_maps(
        log,
        dense,
        planned.dense.layers.layers,
        images.first_batch(images.test.subset([0])),
        scores=planned.scores,
        criterion=criterion,
        kept={layer.conv: layer.mask() for layer in planned.plan.layers},
    )
    log_weights(log, dense, DENSE)


def _log_layers(log: RunLog, layers: Sequence[Mapping[str, Any]]) -> None:
    """Draw filters and MACs of each conv, before and after, as curves and as bars."""
    filters = [layer["filters"] for layer in layers], [len(layer["kept"]) for layer in layers]
    macs = tuple([layer["macs"][state] for layer in layers] for state in ("dense", "pruned"))
    for name, (dense, pruned) in {"filters": filters, "macs": macs}.items():
        for number, values in enumerate(zip(dense, pruned, strict=True), start=1):
            curves = (f"plan/{name}_dense", f"plan/{name}_pruned")
            log.scalars(dict(zip(curves, values, strict=True)), step=number)
        title = f"{name} of {len(dense)} convs: {sum(pruned):,} of {sum(dense):,} stay"
        log.image(f"plan/{name}", bars(title, dense, pruned), _BARS)


def log_scores(board: "RunLog | EventFile", scores: Mapping[str, Tensor]) -> None:
    """Draw the histogram of each conv's scores, {conv: [filters]}."""
    for number, (conv, found) in enumerate(scores.items(), start=1):
        board.histogram(f"scores/{number:03d} {conv}", found, step=0)


def log_ranks(
    folder: Path,
    model: nn.Module,
    layers: Sequence[RankLayer],
    image: Tensor,
    ranks: Mapping[str, Tensor],
) -> None:
    """Draw the mean ranks {conv: [filters]} and the maps of `image`, [1, 3, H, W], into `folder`.

    Raises:
        ValueError: the folder cannot be written.
    """
    with refusals_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(open_events(folder)) as events:
        log_scores(events, ranks)
        log_feature_maps(events, model, layers, image, scores=ranks, criterion="rank")


def check_not_drawn(folder: Path) -> None:
    """Refuse a folder for `log_ranks` that holds event files.

    Raises:
        ValueError: it does.
    """
    if any(folder.glob("*.tfevents.*")):
        raise ValueError(
            f"--tensorboard {folder} holds curves already: expected a folder without; "
            "delete them, or give another"
        )


def log_weights(log: RunLog, model: nn.Module, step: int) -> None:
    """Draw the histogram of the weights that are not zero of each conv and linear layer.

    `step` is DENSE, PRUNED or FINETUNED. A layer of zeros alone is left out.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weights = module.weight.detach()
            weights = weights[weights != 0]
            if len(weights):
                log.histogram(f"weights/{name}", weights.cpu(), step)


def log_feature_maps(
    board: "RunLog | EventFile",
    model: nn.Module,
    layers: Sequence[RankLayer],
    image: Tensor,
    *,
    scores: Mapping[str, Tensor],
    criterion: str,
    kept: Mapping[str, Tensor] | None = None,
) -> None:
    """Draw the feature maps of one image, [1, 3, H, W], at MOST_SITES of the convs with scores.

    Args:
        layers: where each conv's maps are taken.
        scores: {conv: [filters]}.
        kept: {conv: bool [filters]}; None where nothing is decided.
    """
    numbers = {conv: number for number, conv in enumerate(scores, start=1)}
    layers = [layer for layer in layers if layer.conv in scores and layer.site is not None]
    layers = _evenly(layers, MOST_SITES)
    board.image("feature_maps/000 image", picture(image[0]), "The image whose maps these are.")
    for conv, grid in map_grids(model, layers, image, scores, criterion, kept).items():
        board.image(f"feature_maps/{numbers[conv]:03d} {conv}", grid, _MAPS)


@torch.no_grad()
def map_grids(
    model: nn.Module,
    layers: Sequence[RankLayer],
    image: Tensor,
    scores: Mapping[str, Tensor],
    criterion: str,
    kept: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return a picture of each layer's feature maps of one image, {conv: uint8 [H, W, 3]}.

    The arguments are those of `log_feature_maps`.
    """
    maps: dict[Site, Tensor] = {}

    def keep(site: Site, found: Tensor) -> None:
        maps[site] = found[0].float().cpu().clone()  # what follows may work in place

    with evaluating(model), outputs_of(model, {layer.site for layer in layers}, keep):
        model(image)
    grids = {}
    for conv, shown in ((layer.conv, maps[layer.site]) for layer in layers):
        mask = None if kept is None else kept[conv]
        title = _title(conv, shown, mask, criterion)
        grids[conv] = map_grid(title, shown, scores[conv], mask)
    return grids


def _evenly(layers: list[RankLayer], most: int) -> list[RankLayer]:
    """Return at most so many of the layers, the first and the last among them."""
    places = torch.linspace(0, len(layers) - 1, min(len(layers), most)).round().long()
    return [layers[place] for place in places]


def _title(conv: str, maps: Tensor, kept: Tensor | None, criterion: str) -> str:
    filters, height, width = maps.shape
    shown = f", {MOST_MAPS} of them here" if filters > MOST_MAPS else ""
    title = f"{conv}: {filters} filters{shown}, maps {height} x {width}, highest {criterion} first"
    if kept is None:
        return title
    return f"{title}; {int(kept.sum())} kept (blue), {int((~kept).sum())} removed (orange)"


def final_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return what a summary of `prune` says for the table of runs.

    The latency, where it was measured, is that of a batch of test images; the accuracy is that of
    the best epoch.
    """
    states, cost = summary["accuracy"], summary["physical"]
    dense, pruned = cost["dense"], cost["pruned"]
    before = states["dense"]["test"]["top1_percent"]
    cut = states.get("recalibrated", states["pruned"])
    after = states.get("finetuned_best", cut)["test"]["top1_percent"]
    figures = {
        "top1_percent": after,
        "top1_percent_dense": before,
        "top1_points_lost": before - after,
        "macs": pruned["macs"],
        "macs_ratio": dense["macs"] / pruned["macs"],
        "parameters": pruned["parameters"],
    }
    if "latency" in summary:
        timed = {name: found["median_ms"] for name, found in summary["latency"]["batch"].items()}
        figures["latency_ms"] = timed["pruned"]
        figures["latency_ratio"] = timed["dense"] / timed["pruned"]
    return figures


def log_results(
    log: RunLog,
    options: Mapping[str, Any],
    *,
    rates: str,
    figures: Mapping[str, float],
    text: str,
) -> None:
    """Add the run to the table of all runs, and its summary as a page of Markdown.

    The table's columns are the same for every command; a run without an option has "-" there.

    Args:
        rates: what was pruned how much, of which the table shows the beginning.
        figures: some of FIGURES and their values.
    """
    if len(rates) > _LONGEST_RATES:
        rates = rates[: _LONGEST_RATES - 3] + "..."
    told = {name: options.get(name) for name in _OPTIONS} | {"rates": rates}
    told = {name: "-" if value is None else value for name, value in told.items()}
    log.hparams(told, {f"final/{name}": figures.get(name) for name in FIGURES})
    log.text("summary", text)
