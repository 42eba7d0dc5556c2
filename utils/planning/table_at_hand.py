"""Whether a network that was not pruned for time is faster, by the latency tables at hand."""

from collections.abc import Iterable, Iterator

from utils.metrics.latency import FASTER
from utils.metrics.latency_table import LatencyTable, table_of
from utils.metrics.layer_shapes import LayerShape, layer_shapes
from utils.options.prune_options import PruneConfig
from utils.paper.markdown import counted
from utils.planning.plan import Planned
from utils.planning.rate_levels import rate_levels
from utils.planning.time_target import TABLES, removal_without_copies
from utils.pruning.time_model import TimeModel

_STEP = 0.05  # targets in time are named in multiples of this


def not_faster(config: PruneConfig, planned: Planned) -> list[str]:
    """Return a sentence for each latency table of the dense network by which it is no faster.

    Nothing is timed. Copies that put channels into place are in no table: they come on top.
    """
    dense = planned.dense
    if config.by_time or config.mode == "mask" or not planned.plan.masks():
        return []
    before, after = (layer_shapes(model, dense.image) for model in (dense.model, planned.slim))
    said = []
    for table in _at_hand(before.values()):
        times = [
            shape.calls * table.layer_ms(shape, after[name].reads, after[name].writes)
            for name, shape in before.items()
            if name in after
        ]
        left = sum(times) / table.sum_ms(before.values())
        if left > FASTER:
            macs = sum(x.macs for x in after.values()) / sum(x.macs for x in before.values())
            target = max(macs, 1.05 * _least(config, planned, table))
            target = min(_STEP * -(-target // _STEP), 1 - _STEP)
            said.append(_sentence(table, left, macs, target))
    return said


def _at_hand(shapes: Iterable[LayerShape]) -> Iterator[LatencyTable]:
    shapes = list(shapes)
    for path in sorted(TABLES.glob("*.json")):
        table = table_of(path, shapes)
        if table is not None:
            yield table


def _least(config: PruneConfig, planned: Planned, table: LatencyTable) -> float:
    """Return the least share of the time that --max_rate leaves, by the table."""
    dense = planned.dense
    levels = rate_levels(dense, planned.scores, max_rate=config.max_rate, group=True)
    shapes, how = (
        layer_shapes(dense.model, dense.image),
        removal_without_copies(dense, levels.units),
    )
    whole = table.sum_ms(shapes.values())
    model = TimeModel(levels.units, dense.graph, shapes, table, whole, how)
    return model.share(tuple(len(unit.rungs) - 1 for unit in levels.units))


def _sentence(table: LatencyTable, left: float, macs: float, target: float) -> str:
    made = table.measured_on
    images = counted(made["batch_size"], "image")
    setting = f"{made['runtime']}, {images}, {counted(made['threads'], 'thread')}"
    words = f"--target_latency {target:.2g} --runtime {made['runtime']} "
    words += f"--latency_batch_size {made['batch_size']} --latency_threads {made['threads']}"
    return (
        f"Smaller but no faster: by the latency table ({setting}) its layers take {left:.0%} of "
        f"the dense network's time, with {macs:.0%} of the MACs; `{words}` aims at the time itself."
    )
