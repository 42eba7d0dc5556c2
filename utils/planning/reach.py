"""What targets can reach on a network, and which block of channels its runtime computes in."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from utils.graph.network import Network
from utils.options.prune_options import PruneConfig
from utils.planning.budget import timing_of, to_time
from utils.planning.rate_levels import RateLevels, rate_levels
from utils.planning.time_target import time_model
from utils.pruning.rate_units import Levels

TYPICAL = 0.5  # the compress rate of every conv that is called typical


def reachable(
    config: PruneConfig, dense: Network, scores: Mapping[str, Tensor]
) -> list[dict[str, Any]]:
    """Return the least and the typical share that targets leave, by MACs, parameters and time.

    The least is at `--max_rate` everywhere, in time without all branches that may be dropped. Time
    is by the latency table, of layers that sums tie.
    """
    how = {"max_rate": config.max_rate, "round_to": config.round_to}
    network = rate_levels(dense, scores, group=config.group, **how)
    rows = [{"of": of, **_shares(network, network.counter(of), 1.0)} for of in ("macs", "params")]
    timed = rate_levels(to_time(config, dense), scores, group=True, drop=config.drops, **how)
    model, facts = time_model(timed.dense, timed.units, timing_of(config), timed.branches)
    rows.append({"of": "latency", **_shares(timed, model.share, 1.0)})
    rows.append({"of": "ms", **_shares(timed, model.share, facts["whole_ms"])})
    return rows


def _shares(network: RateLevels, left_of: Any, whole: float) -> dict[str, float]:
    least = (*(len(unit.rungs) - 1 for unit in network.units), *[1] * len(network.branches))
    typical = tuple(
        max(k for k, rung in enumerate(unit.rungs) if rung.rate <= TYPICAL)
        for unit in network.units
    )
    levels: dict[str, Levels] = {"least": least, "typical": typical}
    return {name: whole * left_of(at) for name, at in levels.items()} | {"most": whole}


def block_of(config: PruneConfig, dense: Network) -> int:
    """Return the number of channels that the options' runtime computes at once."""
    dense = to_time(config, dense)
    return timing_of(config).block(dense.model, dense.image)
