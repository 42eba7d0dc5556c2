"""Levels of a network's rate units: the compress rates, the plan and the cost of any."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

import torch.nn as nn
from torch import Tensor

from utils.graph.branches import Branch, branches
from utils.graph.groups import channel_groups
from utils.graph.network import Network
from utils.metrics.cost import physical_cost
from utils.paper.rates import CompressRates
from utils.planning.plan import Planner, planner
from utils.pruning.budget import CostOf, land, search
from utils.pruning.giving_back import given_back
from utils.pruning.plan import PruningPlan
from utils.pruning.rate_units import Levels, RateUnit, rate_units, rates_at
from utils.pruning.sensitivity import macs_left, parameters_left
from utils.removal.surgery import remove_filters


@dataclass(frozen=True)
class RateLevels:
    """A dense network, its scores, its rate units, and the plan of any levels of theirs.

    Behind the levels of the units those of the branches may stand: 1 is dropped.
    """

    dense: Network
    scores: Mapping[str, Tensor]
    units: Sequence[RateUnit]
    plan_of: Planner
    branches: Sequence[Branch] = ()

    def rates(self, levels: Levels) -> CompressRates:
        """Return the compress rates of the levels."""
        values = rates_at(self.units, levels[: len(self.units)], self.dense.layers.num_rates)
        return CompressRates(self.dense, "hrank", values)

    def dropped(self, levels: Levels) -> list[list[str]]:
        """Return the layers of each branch that is dropped."""
        pairs = zip(self.branches, levels[len(self.units) :], strict=False)
        return [list(branch.layers) for branch, gone in pairs if gone]

    def plan(self, levels: Levels) -> PruningPlan:
        """Return the plan of the levels."""
        return self.plan_of(self.rates(levels)).without(chain(*self.dropped(levels)))

    def masks(self, levels: Levels) -> dict[str, Tensor]:
        """Return {conv: bool [filters]}, True is kept, of the plan of the levels."""
        return self.plan(levels).masks()

    def deployed(self, levels: Levels, block: int) -> nn.Module:
        """Return the network of the levels as `--align blocks` has it, unproven."""
        model, graph = self.dense.model, self.dense.graph
        plan = given_back(self.plan(levels), model, graph, self.scores, block)
        return remove_filters(model, graph, plan.masks(), align="zeros", check=False)

    def counter(self, of: str) -> CostOf:
        """Return levels -> the share that removal would leave of the "params", else of the MACs."""
        model, graph = self.dense.model, self.dense.graph
        cost = physical_cost(model, self.dense.image)
        macs = {layer.weight: layer.macs for layer in cost.layers}

        @cache
        def left(levels: Levels) -> float:
            masks = self.masks(levels)
            if of == "params":
                return parameters_left(model, graph, masks) / cost.parameters
            return macs_left(model, graph, macs, masks) / cost.macs

        return left

    def nearest(self, steps: Sequence[int], left_of: CostOf, share: float) -> tuple[int, ...]:
        """Return the levels, on the way along the steps or near it, that leave about `share`."""
        found = search(steps, len(self.units), left_of, share)
        return land(self.units, found, left_of, share)


def rate_levels(
    dense: Network,
    scores: Mapping[str, Tensor],
    *,
    max_rate: float,
    group: bool = False,
    round_to: int = 1,
    drop: bool = False,
) -> RateLevels:
    """Return the units of a network that may lose channels, and the plan of any levels of theirs.

    With `drop` its branches may be dropped, all layers of which are scored. For `group` and
    `round_to` see `utils.planning.plan.plan_rates`.
    """
    units = rate_units(
        channel_groups(dense.graph, across_sums=group),
        {layer.conv: layer.rate for layer in dense.layers.scored() if layer.conv in scores},
        max_rate=max_rate,
        round_to=round_to,
    )
    plan_of = planner(dense, scores, group=group, round_to=round_to)
    planned = {layer.conv for layer in dense.layers.layers}
    found = [b for b in branches(dense.graph) if planned.issuperset(b.layers)] if drop else []
    return RateLevels(dense, scores, units, plan_of, found)
