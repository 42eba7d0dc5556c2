"""Automatic rates of `main.py prune`: the compress rates that leave what a target says."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.graph.network import Network
from utils.metrics.runtimes import runtime_of
from utils.options.budget_options import TIMED_ALIGN
from utils.options.devices import open_device
from utils.options.images import Images
from utils.options.prune_options import PruneConfig
from utils.paper.markdown import counted
from utils.paper.rates import read_rates
from utils.planning.branch_changes import changes_without
from utils.planning.budget_scan import dense_losses, scan_folder_for
from utils.planning.rate_levels import RateLevels, rate_levels
from utils.planning.scanning import ScanPlan
from utils.planning.time_target import BUSY, TIME_TOLERANCE, Timing, land_in_time, time_model
from utils.pruning.allocation import (
    global_steps,
    losses,
    normalized,
    sensitivity_steps,
    uniform_steps,
)
from utils.pruning.budget import TOLERANCE, CostOf, levels_after, search
from utils.pruning.knapsack import Knapsack, knapsack_by_scores, scan_lost
from utils.pruning.rate_units import Levels
from utils.pruning.sensitivity import read_points
from utils.pruning.time_model import TimeModel
from utils.rank.estimation import outputs_of
from utils.rank.rank_files import read_manifest
from utils.removal.surgery import remove_filters
from utils.runs.borrowed_state import evaluating
from utils.runs.choices import RANK_CRITERIA
from utils.runs.job_folder import JobFolder
from utils.runs.json_files import read_json
from utils.runs.regular_file import is_there
from utils.runs.schema import FLAG, TEXT, Kind, Nullable, Optional, number, one_of, whole

_NAMES = {
    "macs": "of the MACs",
    "params": "of the parameters",
    "latency": "of the latency",
    "ms": "ms",
}
_TIMES = {
    "median_ms": number(0),
    "batch_size": whole(1),
    "device": TEXT,
    "threads": whole(1),
}
_BUDGET = {  # the schema of budget.json
    "of": one_of(*_NAMES),
    "target": number(0),
    "left": number(0),
    "within_tolerance": FLAG,
    "allocation": TEXT,
    "scan": Nullable(TEXT),
    "reranked": Optional(FLAG),
    "compress_rate": TEXT,
    "dropped": [([TEXT], Kind("one layer or more", bool))],
    "runtime": Optional(TEXT),
    "latency": Optional({"dense": _TIMES, "pruned": _TIMES}),
}


def find_budget(
    config: PruneConfig,
    dense: Network,
    scores: Mapping[str, Tensor],
    job: JobFolder,
    *,
    images: Images | None,
    make_scan: Callable[[ScanPlan], Any],
) -> dict[str, Any]:
    """Return the summary's `budget`: the target, the compress rates found, and what they leave.

    `dropped` are the layers of each branch that goes whole; which, `images` say, else the scores.

    What the job folder has of it already is taken as it is, so that a run that is taken up prunes
    what it pruned, however long a pass takes now. A dry run, which has no folder, searches.
    `make_scan` makes the scan that --allocation sensitivity lacks.

    Raises:
        ValueError: an unfit scan, or a target that `--max_rate` keeps out of reach.
    """
    if is_there(job.budget) and not config.dry_run:
        return _kept_budget(config, dense, job)
    how = {name: getattr(config, name) for name in ("max_rate", "group", "round_to")}
    network = rate_levels(dense, scores, drop=config.drops and config.by_time, **how)
    sensitive, (name, share) = config.allocation == "sensitivity", config.target
    scan = None
    if sensitive:
        scan = scan_folder_for(config, dense, scores, make_scan=make_scan)
    if config.by_time:
        levels, found = _by_time(config, network, scan, images)
    else:
        levels, found = _by_count(config, network, scan)
    return {
        "of": name,
        "target": share,
        "within_tolerance": _is_near(config, found["left"]),
        "allocation": config.allocation,
        "scan": None if scan is None else str(scan),
        "reranked": config.rerank,
        "compress_rate": network.rates(levels).text(),
        "dropped": network.dropped(levels),
        **found,
    }


def _is_near(config: PruneConfig, left: float) -> bool:
    """Return whether what is left is the target, within the tolerance of counts or of times."""
    tolerance, wanted = TIME_TOLERANCE if config.by_time else TOLERANCE, config.target[1]
    return abs(left - wanted) <= tolerance * wanted


def _kept_budget(config: PruneConfig, dense: Network, job: JobFolder) -> dict[str, Any]:
    """Return what the run that is taken up found, of the same target."""
    found = read_json(job.budget, _BUDGET, "a run's budget")
    if (found["of"], found["target"]) != config.target:
        name, share = config.target
        raise ValueError(
            f"{job.budget} is for {found['target']:g} {_NAMES[found['of']]}: expected "
            f"{share:g} {_NAMES[name]}, give another --job_dir or delete {job.path}"
        )
    if found["within_tolerance"] != _is_near(config, found["left"]):
        raise ValueError(
            f"{job.budget}: 'left' is {found['left']:g} and 'within_tolerance' "
            f"{found['within_tolerance']}: expected that they agree"
        )
    try:
        read_rates(found["compress_rate"], dense, config.layout)
    except ValueError as error:
        raise ValueError(f"{job.budget}: 'compress_rate' does not fit, {error}") from None
    unknown = set().union(*found["dropped"]) - {layer.conv for layer in dense.layers.layers}
    if unknown:
        raise ValueError(
            f"{job.budget}: 'dropped' names {min(unknown)!r}: expected layers of the network"
        )
    return found


def _steps(
    config: PruneConfig, network: RateLevels, scan: Path | None, left_of: CostOf
) -> list[int]:
    """Return the order in which the allocation lets units lose channels."""
    if config.allocation == "uniform":
        return uniform_steps(network.units)
    if scan is None:
        return global_steps(network.units, _normalized(config, network))
    curves = losses(network.units, read_points(scan), dense_losses(scan))
    return sensitivity_steps(network.units, curves, left_of, until=config.target[1])


def _normalized(config: PruneConfig, network: RateLevels) -> dict[str, Tensor]:
    """Return the scores, comparable between layers."""
    by_rank = config.criterion in RANK_CRITERIA
    full = full_ranks(network.dense, config.rank_folder) if by_rank else None
    return normalized(network.scores, full)


def budget_line(budget: Mapping[str, Any]) -> str:
    """Return one sentence on what a target asked for and what it got."""
    tolerance = TIME_TOLERANCE if "latency" in budget else TOLERANCE
    if budget["of"] == "ms":
        got = f"target: {budget['target']:g} ms; it takes {budget['left']:.2f} ms"
    else:
        whole = _NAMES[budget["of"]].replace("of the", "of the dense network's")
        got = f"target: {budget['target']:.1%} {whole}; left: {budget['left']:.2%}"
    if not budget["within_tolerance"]:
        got += f", the nearest that was found, not within {tolerance:.0%} of the target"
    if budget.get("spread", 1.0) > BUSY:
        got += f", on a busy machine (slow passes took {budget['spread']:.1f} times the quick ones)"
    how = budget["allocation"] + (f", scan {budget['scan']}" if budget["scan"] else "")
    if "latency" in budget:
        dense, pruned = (budget["latency"][name] for name in ("dense", "pruned"))
        how += (
            f"; {dense['median_ms']:.2f} ms -> {pruned['median_ms']:.2f} ms, medians, "
            f"{budget['runtime']}, {counted(dense['batch_size'], 'image')}, {dense['device']}, "
            f"{counted(dense['threads'], 'thread')}"
        )
    line = f"{got} ({how})."
    if budget.get("dropped"):
        ends = ", ".join(layers[-1] for layers in budget["dropped"])
        line += f" Dropped whole: the residual branches that end in {ends}."
    if budget.get("reranked"):
        line += (
            " That is counted with the filters that the dense network's scores keep: --rerank "
            "keeps others, as many of each conv, and the table has what they leave."
        )
    return line


def _check_reachable(config: PruneConfig, least: float, tolerance: float = TOLERANCE) -> None:
    name, share = config.target
    if least > share * (1 + tolerance):
        limit = f"--max_rate {config.max_rate:g}"
        if config.allocation == "sensitivity":
            limit += " and the highest rate of the scan"
        raise ValueError(
            f"--target_{name} {share:g} is out of reach: within {limit} at least {least:.4f} "
            f"{_NAMES[name]} stay, expected a target from there on"
        )


def _by_count(
    config: PruneConfig, network: RateLevels, scan: Path | None
) -> tuple[Levels, dict[str, Any]]:
    """Return the levels whose MACs or parameters are nearest to the target, and what is left."""
    (name, share), num_units = config.target, len(network.units)
    left_of = network.counter(name)
    steps = _steps(config, network, scan, left_of)
    _check_reachable(config, left_of(levels_after(steps, num_units)))
    levels = network.nearest(steps, left_of, share)
    return levels, {"left": left_of(levels)}


def _by_time(
    config: PruneConfig, network: RateLevels, scan: Path | None, images: Images | None
) -> tuple[Levels, dict[str, Any]]:
    """Return the levels whose network takes the target's time and keeps the most, and its times."""
    dense, timing = to_time(config, network.dense), timing_of(config)
    model, facts = time_model(dense, network.units, timing, network.branches)
    share, unit = config.target[1], 1.0
    if config.target[0] == "ms":
        share, unit = share / facts["whole_ms"], facts["whole_ms"]
    proposed = _proposals(config, network, scan, model, images)
    levels, found = land_in_time(
        dense,
        timing,
        proposed=proposed,
        predicted=model.share,
        made=_maker(config, replace(network, dense=dense), facts["block"]),
        target=share,
    )
    if found["spread"] <= BUSY:  # else nobody knows what is in reach
        least = min(one["measured"] for one in found["rounds"])
        _check_reachable(config, unit * least, TIME_TOLERANCE)
    found["left"] *= unit
    return levels, {**facts, **found, "runtime": config.runtime}


def _maker(
    config: PruneConfig, network: RateLevels, block: int
) -> Callable[[Levels], torch.nn.Module]:
    """Return the function from levels to the network that is then made of them."""
    if config.alignment in TIMED_ALIGN:
        return lambda levels: network.deployed(levels, block)
    model, graph, align = network.dense.model, network.dense.graph, config.alignment
    how = {"align": align, "check": False}
    return lambda levels: remove_filters(model, graph, network.masks(levels), **how)


def timing_of(config: PruneConfig) -> Timing:
    """Return how the options time networks."""
    return Timing(config.runtime, config.latency_batch_size, config.latency_threads)


def to_time(config: PruneConfig, dense: Network) -> Network:
    """Return the network on the device that it is timed on."""
    on_cpu = runtime_of(config.runtime).packages
    device = torch.device("cpu") if on_cpu else open_device(config.device, config.gpu)
    return replace(dense, model=copy.deepcopy(dense.model).to(device))


def _proposals(
    config: PruneConfig,
    network: RateLevels,
    scan: Path | None,
    model: TimeModel,
    images: Images | None,
) -> Callable[[float], Levels]:
    """Return the function from a share of the time to the levels that the allocation finds."""
    units = network.units
    if config.allocation == "uniform":
        steps = uniform_steps(units)
        return lambda share: search(steps, len(units), model.share, max(share, 1e-6))
    if scan is not None:
        curves = losses(units, read_points(scan), dense_losses(scan))
        lost = [scan_lost(unit, curve) for unit, curve in zip(units, curves, strict=True)]
        return Knapsack(units, lost, model).within
    scores = _normalized(config, network)
    changes = changes_without(network.dense, network.branches, images, config.seed)
    return knapsack_by_scores(model, scores, changes).within


@torch.no_grad()
def full_ranks(dense: Network, rank_folder: Path) -> dict[str, int]:
    """Return {conv: min(h, w) of the maps that it was ranked on}.

    The folder's manifest has the sizes; without one the sites are the official ones.
    """
    layers = dense.layers.scored()
    sizes: dict[str, int] = {}

    def record(site, maps: Tensor) -> None:
        sizes.update({x.conv: min(maps.shape[2:]) for x in layers if x.site == site})

    with evaluating(dense.model), outputs_of(dense.model, dense.layers.sites(), record):
        dense.model(dense.image)
    entries = (read_manifest(rank_folder) or {}).get("layers", ())
    return sizes | {x["conv"]: min(x["map_size"]) for x in entries if "map_size" in x}
