"""Automatic rates of `main.py prune`: the compress rates that leave what a target says."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.graph.groups import channel_groups
from utils.graph.network import Network
from utils.metrics.cost import physical_cost
from utils.metrics.latency import Latency, compare_latency
from utils.options.devices import open_device
from utils.options.prune_options import PruneConfig
from utils.paper.markdown import counted
from utils.paper.rates import CompressRates
from utils.planning.budget_scan import dense_losses, scan_folder_for
from utils.planning.plan import Planner, planner
from utils.planning.scanning import ScanPlan
from utils.pruning.allocation import (
    global_steps,
    losses,
    normalized,
    sensitivity_steps,
    uniform_steps,
)
from utils.pruning.budget import TOLERANCE, CostOf, land, levels_after, search
from utils.pruning.criteria import RANK_CRITERIA
from utils.pruning.rate_units import Levels, RateUnit, rate_units, rates_at
from utils.pruning.sensitivity import macs_left, parameters_left, read_points
from utils.rank.estimation import outputs_of
from utils.rank.rank_files import read_manifest
from utils.removal.surgery import remove_filters
from utils.runs.borrowed_state import evaluating
from utils.runs.job_folder import JobFolder
from utils.runs.notes import note

_NAMES = {"macs": "MACs", "params": "parameters", "latency": "latency"}


def find_budget(
    config: PruneConfig,
    dense: Network,
    scores: Mapping[str, Tensor],
    job: JobFolder,
    *,
    make_scan: Callable[[ScanPlan], Any],
) -> dict[str, Any]:
    """Return the summary's `budget`: the target, the compress rates found, and what they leave.

    What the job folder has of it already is taken as it is, so that a run that is taken up prunes
    what it pruned, however long a pass takes now. A dry run, which has no folder, searches.
    `make_scan` makes the scan that --allocation sensitivity lacks.

    Raises:
        ValueError: an unfit scan, or a target that `--max_rate` keeps out of reach.
    """
    if job.budget.exists() and not config.dry_run:
        return json.loads(job.budget.read_text())
    network = _prunable(config, dense, scores)
    sensitive, (name, share) = config.allocation == "sensitivity", config.target
    scan = None
    if sensitive:
        scan = scan_folder_for(config, dense, scores, make_scan=make_scan)
    left_of = network.counter(name)
    steps = _steps(config, network, scan, left_of)
    if name == "latency":
        levels, left, timed = _by_latency(config, network, steps)
    else:
        levels, timed = _by_count(config, network, steps, left_of), {}
        left = left_of(levels)
    return {
        "of": name,
        "target": share,
        "left": left,
        "within_tolerance": abs(left - share) <= TOLERANCE * share,
        "allocation": config.allocation,
        "scan": None if scan is None else str(scan),
        "reranked": config.rerank,
        "compress_rate": network.rates(levels).text(),
        **timed,
    }


@dataclass(frozen=True)
class _Prunable:
    """A dense network, its scores, its rate units, and the plan of any levels of theirs."""

    dense: Network
    scores: Mapping[str, Tensor]
    units: Sequence[RateUnit]
    plan_of: Planner

    def rates(self, levels: Levels) -> CompressRates:
        """Return the compress rates of the levels."""
        values = rates_at(self.units, levels, self.dense.layers.num_rates)
        return CompressRates(self.dense, "hrank", values)

    def masks(self, levels: Levels) -> dict[str, Tensor]:
        """Return {conv: bool [filters]}, True is kept, of the plan of the levels."""
        return self.plan_of(self.rates(levels)).masks()

    def counter(self, of: str) -> CostOf:
        """Return levels -> the share that removal would leave of the "params", else of the MACs."""
        model, graph = self.dense.model, self.dense.graph
        cost = physical_cost(model, self.dense.image)
        macs = {layer.name: layer.macs for layer in cost.layers}

        @cache
        def left(levels: Levels) -> float:
            masks = self.masks(levels)
            if of == "params":
                return parameters_left(model, graph, masks) / cost.parameters
            return macs_left(model, graph, macs, masks) / cost.macs

        return left


def _prunable(config: PruneConfig, dense: Network, scores: Mapping[str, Tensor]) -> _Prunable:
    """Return the network with the units that the options leave it."""
    units = rate_units(
        channel_groups(dense.graph, across_sums=config.group),
        {layer.conv: layer.rate for layer in dense.layers.scored()},
        max_rate=config.max_rate,
        round_to=config.round_to,
    )
    plan_of = planner(dense, scores, group=config.group, round_to=config.round_to)
    return _Prunable(dense, scores, units, plan_of)


def _steps(
    config: PruneConfig, network: _Prunable, scan: Path | None, left_of: CostOf
) -> list[int]:
    """Return the order in which the allocation lets units lose channels."""
    if config.allocation == "uniform":
        return uniform_steps(network.units)
    if config.allocation == "global":
        by_rank = config.criterion in RANK_CRITERIA
        full = full_ranks(network.dense, config.rank_folder) if by_rank else None
        return global_steps(network.units, normalized(network.scores, full))
    note(f"sharing out what may go by the scan in {scan}")
    name, share = config.target
    curves = losses(network.units, read_points(scan), dense_losses(scan))
    until = 0.0 if name == "latency" else share
    return sensitivity_steps(network.units, curves, left_of, until=until)


def budget_line(budget: Mapping[str, Any]) -> str:
    """Return one sentence on what a target asked for and what it got."""
    whole = f"the dense network's {_NAMES[budget['of']]}"
    got = f"target: {budget['target']:.1%} of {whole}; left: {budget['left']:.2%}"
    if not budget["within_tolerance"]:
        got += f", the nearest that was found, not within {TOLERANCE:.0%} of the target"
    how = budget["allocation"] + (f", scan {budget['scan']}" if budget["scan"] else "")
    if "latency" in budget:
        dense, pruned = (budget["latency"][name] for name in ("dense", "pruned"))
        how += (
            f"; {dense['median_ms']:.2f} ms -> {pruned['median_ms']:.2f} ms, medians, "
            f"{counted(dense['batch_size'], 'image')}, {dense['device']}, "
            f"{counted(dense['threads'], 'thread')}"
        )
    line = f"{got} ({how})."
    if budget.get("reranked"):
        line += (
            " That is counted with the filters that the dense network's scores keep: --rerank "
            "keeps others, as many of each conv, and what they leave stands in the table."
        )
    return line


def _check_reachable(config: PruneConfig, least: float) -> None:
    name, share = config.target
    if least > share * (1 + TOLERANCE):
        limit = f"--max_rate {config.max_rate:g}"
        if config.allocation == "sensitivity":
            limit += " and the highest rate of the scan"
        raise ValueError(
            f"--target_{name} {share:g} is out of reach: within {limit} at least {least:.4f} of "
            f"the {_NAMES[name]} stay, expected a target from there on"
        )


def _by_count(
    config: PruneConfig, network: _Prunable, steps: list[int], left_of: CostOf
) -> tuple[int, ...]:
    """Return the levels whose MACs or parameters are nearest to the target."""
    share, num_units = config.target[1], len(network.units)
    _check_reachable(config, left_of(levels_after(steps, num_units)))
    levels = search(steps, num_units, left_of, share)
    return land(network.units, levels, left_of, share)


def _by_latency(
    config: PruneConfig, network: _Prunable, steps: list[int]
) -> tuple[tuple[int, ...], float, dict[str, Any]]:
    """Return the levels whose network takes the target's share of the dense one's time.

    Every candidate is really removed and timed beside the dense network, in turns. The chosen one
    is timed once more, since of several noisy measurements the one that fits is the luckiest; that
    second share is returned, and its times.
    """
    device = open_device(config.device, config.gpu)
    model = copy.deepcopy(network.dense.model).to(device)
    images = network.dense.example.repeat(config.latency_batch_size, 1, 1, 1).to(device)

    def timed(levels: Levels) -> dict[str, Latency]:
        slim = remove_filters(model, network.dense.graph, network.masks(levels))
        return compare_latency({"dense": model, "pruned": slim}, images)

    @cache
    def share_of(levels: Levels) -> float:
        share = _share(timed(levels))
        note(f"timed {network.rates(levels).text()}: {share:.1%} of the dense network's latency")
        return share

    num_units = len(network.units)
    _check_reachable(config, share_of(levels_after(steps, num_units)))
    levels = search(steps, num_units, share_of, config.target[1])
    again = timed(levels)
    return levels, _share(again), {"latency": {name: asdict(one) for name, one in again.items()}}


def _share(timed: Mapping[str, Latency]) -> float:
    return timed["pruned"].median_ms / timed["dense"].median_ms


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
