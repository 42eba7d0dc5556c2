"""Contestants of the latency benchmark: ways to make a network as fast as is asked for.

Each has one knob from 0 (dense) to 1; which knob takes a share of the dense network's time is
found by timing, so that all are compared at the same time.
"""

import copy
import importlib.util
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.groups import channel_groups
from utils.graph.network import Network
from utils.options.images import Images
from utils.planning.branch_changes import changes_without
from utils.planning.budget import full_ranks
from utils.planning.plan import score_layers
from utils.planning.rate_levels import RateLevels, rate_levels
from utils.planning.time_target import Timing, land_in_time, share_of, time_model
from utils.pruning.allocation import global_steps, normalized
from utils.pruning.budget import levels_after
from utils.pruning.knapsack import knapsack_by_scores
from utils.pruning.rate_units import Levels
from utils.removal.surgery import remove_filters
from utils.runs.notes import note

_MAX_RATE = 0.9
_TRIES = 7
_NEAR = 0.015
_BLOCKS = (8, 16)  # Torch-Pruning's round_to, of which the best counts

Knob = Callable[[float], nn.Module]


@dataclass(frozen=True)
class Prunable:
    """A dense network and the scores of its filters, pruned by `group` or filter by filter.

    With `drop` its branches may go whole; which, `images` say, where it is trained.
    """

    dense: Network
    scores: Mapping[str, Tensor]
    full_ranks: Mapping[str, int] | None
    group: bool
    drop: bool = False
    images: Images | None = None

    @cached_property
    def rates(self) -> RateLevels:
        """What goes by one rate, and the plans of any levels of that."""
        how = {"group": self.group, "drop": self.drop}
        return rate_levels(self.dense, self.scores, max_rate=_MAX_RATE, **how)

    @cached_property
    def changes(self) -> dict[str, float]:
        """What the outputs change by without each branch."""
        return changes_without(self.dense, self.rates.branches, self.images, seed=0)

    def normalized(self) -> dict[str, Tensor]:
        """Return the scores, comparable between layers."""
        return normalized(self.scores, self.full_ranks)

    def deployed(self, levels: Levels, block: int) -> nn.Module:
        """Return the small network of the levels as targets in time make it."""
        return self.rates.deployed(levels, block)

    def removed(self, levels: Levels) -> nn.Module:
        """Return the small network of the levels."""
        masks = self.rates.masks(levels)
        return remove_filters(self.dense.model, self.dense.graph, masks, check=False)


@dataclass(frozen=True)
class Contestant:
    """A way to make a network fast: `make` gives the network of a setting, as JSON holds that.

    `find` gives the setting whose network takes a share of the dense network's time, as it is
    timed, and the share that it does take.
    """

    name: str
    make: Callable[[Any], nn.Module]
    find: Callable[[Timing, float], tuple[Any, float]]


def contestants(network: Prunable, *, ranks: bool, seed: int) -> list[Contestant]:
    """Return the contestants, of a network and its L1 scores; with `ranks` by those, too."""
    dense, grouped = network.dense, replace(network, group=True)
    timed = replace(grouped, drop=True)
    found = [Contestant("dense", lambda _: dense.model, lambda timing, share: (0, 1.0))]
    found.append(_in_time("target in time, l1", timed))
    found.append(_in_time("target in time, l1, --drop_branches off", grouped))
    if ranks:
        folder = Path("rank_conv") / dense.spec
        how = {"criterion": "rank", "rank_folder": folder, "seed": seed, "force": True}
        scores = {"scores": score_layers(dense, **how), "full_ranks": full_ranks(dense, folder)}
        ranked = replace(timed, **scores)
        found.append(_in_time("target in time, rank", ranked))
    knobs = {"MACs, l1": by_macs(network), "MACs, l1, --group": by_macs(grouped)}
    return found + [_by_knob(dense, *one) for one in {**knobs, **torch_pruning(dense)}.items()]


def _in_time(name: str, network: Prunable) -> Contestant:
    def find(timing: Timing, share: float) -> tuple[dict[str, Any], float]:
        levels, found = levels_in_time(network, timing, share)
        return {"levels": list(levels), "block": found["block"]}, found["left"]

    return Contestant(name, lambda setting: network.deployed(**setting), find)


def _by_knob(dense: Network, name: str, knob: Knob) -> Contestant:
    return Contestant(name, knob, lambda timing, share: at_share(dense, timing, knob, share))


def levels_in_time(
    network: Prunable, timing: Timing, share: float
) -> tuple[Levels, dict[str, Any]]:
    """Return the levels that `--target_latency` finds, and how they were found."""
    rates = network.rates
    model, facts = time_model(network.dense, rates.units, timing, rates.branches)
    knapsack = knapsack_by_scores(model, network.normalized(), network.changes)
    levels, found = land_in_time(
        network.dense,
        timing,
        proposed=knapsack.within,
        predicted=model.share,
        made=lambda levels: network.deployed(levels, facts["block"]),
        target=share,
    )
    return levels, facts | found


def by_macs(network: Prunable) -> Knob:
    """Return the networks that `--target_macs` makes: the lowest scores of all layers go first."""
    units = network.rates.units
    steps = global_steps(units, network.normalized())

    def at(knob: float) -> nn.Module:
        levels = levels_after(steps[: round(knob * len(steps))], len(units))
        return network.removed(levels)

    return at


def torch_pruning(dense: Network) -> dict[str, Knob]:
    """Return Torch-Pruning's networks by L1, {name: knob}, for each rounding; {} without it."""
    if importlib.util.find_spec("torch_pruning") is None:
        return {}
    return {f"Torch-Pruning, round_to {block}": _torch_pruning(dense, block) for block in _BLOCKS}


def _torch_pruning(dense: Network, round_to: int) -> Knob:
    import torch_pruning

    streams = {  # where it breaks on a zero-padded shortcut, streams are left whole
        layer
        for group in channel_groups(dense.graph, across_sums=True)
        for layer in group.layers
        if len(group.layers) > 1
    }

    def pruned(knob: float, whole: Collection[str]) -> nn.Module:
        model = copy.deepcopy(dense.model).eval()
        linears = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
        torch_pruning.pruner.BasePruner(
            model,
            dense.example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
            pruning_ratio=_MAX_RATE * knob,
            round_to=round_to,
            ignored_layers=[model.get_submodule(name) for name in (linears[-1], *whole)],
        ).step()
        with torch.no_grad():
            model(dense.example)
        return model

    def at(knob: float) -> nn.Module:
        try:
            return pruned(knob, ())
        except RuntimeError:
            return pruned(knob, streams)

    return at


def at_share(dense: Network, timing: Timing, knob: Knob, share: float) -> tuple[float, float]:
    """Return where the knob is turned to for a time that is nearest to the share, and the time.

    Halves the interval of the knob; a network that is slower than dense counts as dense.
    """
    low, high, found = 0.0, 1.0, []
    for _ in range(_TRIES):
        middle = (low + high) / 2
        models = {"dense": dense.model, "pruned": knob(middle)}
        with torch.no_grad():
            measured = share_of(timing.compare(models, dense.image))
        note(f"knob {middle:.3f}: {measured:.1%} of the time")
        found.append((abs(measured - share), middle, measured))
        if abs(measured / share - 1) <= _NEAR:
            break
        low, high = (middle, high) if measured > share else (low, middle)
    _, middle, measured = min(found)
    return middle, measured
