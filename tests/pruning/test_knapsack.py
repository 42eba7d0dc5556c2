"""Laws of targets in time: modelled widths are those of removed networks, and what fits stays."""

import random
from statistics import median
from types import SimpleNamespace

import pytest
import torch

from models.registry import build_model, example_images
from tests.metrics.test_latency_table import Clock
from tests.networks import Chain, Concat, Depthwise, PaddedResidual, Residual, randomized
from utils.graph.branches import branches
from utils.graph.channel_graph import trace_channels
from utils.graph.groups import channel_groups
from utils.metrics.latency_table import measure_table
from utils.metrics.layer_shapes import layer_shapes
from utils.pruning.group_plan import plan_groups
from utils.pruning.knapsack import Knapsack, branches_lost, scan_lost, scores_lost
from utils.pruning.rate_units import rate_units
from utils.pruning.scores import score_filters
from utils.pruning.time_model import TimeModel
from utils.removal.record import Removal
from utils.removal.surgery import remove_filters

IMAGE = torch.zeros(1, 3, 8, 8)
NETWORKS = {
    "residual": (lambda: Chain([Residual, PaddedResidual, Residual]), IMAGE),
    "depthwise": (lambda: Chain([Depthwise, Concat, Depthwise]), IMAGE),
    "resnet_8": (lambda: build_model("resnet_8"), example_images("resnet_8")),
}


class Case:
    """A network with units, scores, and a model of its time on a clock that runs in blocks of 8."""

    def __init__(self, name, folder):
        make, self.image = NETWORKS[name]
        self.net = randomized(make(), seed=0).float()
        self.graph = trace_channels(self.net, self.image)
        self.groups = channel_groups(self.graph, across_sums=True)
        self.scores = score_filters(self.net, self.graph, "l1")
        self.position = {conv: number for number, conv in enumerate(self.scores)}
        self.units = rate_units(self.groups, self.position, max_rate=0.9)
        self.shapes = shapes = layer_shapes(self.net, self.image)
        table = measure_table(Clock(8), shapes.values(), 1, folder / "table.json")
        whole_ms = 1.1 * table.sum_ms(shapes.values())
        self.branches = branches(self.graph)
        how = Removal(), self.branches
        self.model = TimeModel(self.units, self.graph, shapes, table, whole_ms, *how)
        lost = branches_lost(self.model, self.scores, {})
        self.knapsack = Knapsack(self.units, scores_lost(self.model, self.scores), self.model, lost)

    def removed(self, levels):
        """The network that the levels leave."""
        count = len(self.units)
        rates = {
            conv: unit.rungs[level].rate
            for unit, level in zip(self.units, levels[:count], strict=True)
            for conv, position in self.position.items()
            if position in unit.positions
        }
        gone = zip(self.branches, levels[count:], strict=True)
        dropped = [layer for branch, is_gone in gone if is_gone for layer in branch.layers]
        plan = plan_groups(self.groups, self.scores, rates).without(dropped)
        return plan, remove_filters(self.net, self.graph, plan.masks())

    def random_levels(self, seed):
        chance = random.Random(seed)
        widths = tuple(chance.randrange(len(unit.rungs)) for unit in self.units)
        return (*widths, *(chance.randrange(2) for _ in self.branches))

    def macs(self, levels):
        """The MACs of the layers at the widths that the levels leave."""
        widths = self.model.widths(levels)
        return sum(self.shapes[name].at(*both).macs for name, both in widths.items())

    def dense(self):
        """The levels of the whole network."""
        return (0,) * (len(self.units) + len(self.branches))


@pytest.fixture(params=NETWORKS)
def case(request, tmp_path):
    return Case(request.param, tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_widths_are_those_of_the_removed_network(case, seed):
    levels = case.random_levels(seed)
    slim = layer_shapes(case.removed(levels)[1], case.image)
    assert case.model.widths(levels) == {n: (x.reads, x.writes) for n, x in slim.items()}


def test_what_is_saved_is_the_difference_of_the_shares(case):
    assert case.model.share(case.dense()) == pytest.approx(1)
    for seed in range(5):
        levels, others = case.random_levels(seed), case.random_levels(seed + 5)
        for number, level in enumerate(others):
            moved = (*levels[:number], level, *levels[number + 1 :])
            expected = case.model.share(levels) - case.model.share(moved)
            assert case.model.saved(levels, number, level) == pytest.approx(expected)
            fewer = (case.macs(levels) - case.macs(moved)) / case.macs(case.dense())
            assert case.model.macs_saved(levels, number, level) == pytest.approx(fewer)


@pytest.mark.parametrize(("macs", "gone"), [((0.1, 0.2), (1, 0)), ((0.2, 0.1), (0, 1))])
def test_of_units_of_the_same_scores_and_time_that_of_fewer_macs_goes(macs, gone):
    model = SimpleNamespace(
        branches=(),
        stops=lambda number: [1],
        share=lambda levels: 1 - 0.3 * sum(levels),
        saved=lambda levels, number, level: 0.3 * (level - levels[number]),
        macs_saved=lambda levels, number, level: macs[number] * (level - levels[number]),
    )
    units, lost = [SimpleNamespace(groups=())] * 2, [[0.0, 1.0]] * 2
    assert Knapsack(units, lost, model, macs_count=1.0).within(0.8) == gone


def test_a_level_loses_the_scores_of_the_filters_that_go_once_for_each_reader(case):
    levels = case.random_levels(0)[: len(case.units)] + (0,) * len(case.branches)
    lost = sum(of_unit[x] for of_unit, x in zip(case.knapsack.lost, levels, strict=False))
    masks, whole = case.removed(levels)[0].masks(), case.model.widths(case.dense())
    gone = 0.0
    for group in case.groups:
        first = {
            layer: torch.ones(len(case.scores.get(layer, ())), dtype=torch.bool)
            for layer in group.layers
        }
        for layer, index in () if group.protected else group.channels[0]:
            first[layer][index] = False
        left = case.graph.kept_positions(case.graph.kept({} if group.protected else first))
        readers = sum(len(left[n][1]) < reads for n, (reads, _) in whole.items())
        for layer, index in (filter for channel in group.channels for filter in channel):
            if layer in masks and not masks[layer][index]:
                score = float(case.scores[layer][index])
                gone += readers * score / len(case.scores[layer]) ** 0.5
    assert lost == pytest.approx(gone, rel=0.05)  # tied layers are not ordered by the same numbers
    assert lost <= gone * (1 + 1e-5)


@pytest.mark.parametrize("share", [0.8, 0.5])
def test_all_that_fits_within_the_time_stays(case, share):
    levels = case.knapsack.within(share)
    least = case.model.share(case.knapsack.within(0.0))
    assert case.model.share(levels) <= max(share, least) + 1e-9
    case.knapsack.levels = list(levels)
    for number, level in enumerate(levels):
        for stop in (0, *case.model.stops(number)):
            if stop < level and case.knapsack.more_lost(number, stop) < 0:
                moved = (*levels[:number], stop, *levels[number + 1 :])
                assert case.model.share(moved) > share


def test_all_branches_go_before_the_least_is_reached_and_their_widths_stand_still(case):
    levels = case.knapsack.within(0.0)
    assert all(levels[len(case.units) :])
    gone = case.model.dropped(levels)
    for unit, level in zip(case.units, levels, strict=False):
        if {layer for group in unit.groups for layer in group.layers} <= gone:
            assert level == 0
    last = (*(len(unit.rungs) - 1 for unit in case.units), *[1] * len(case.branches))
    assert case.model.share(levels) <= case.model.share(last) + 1e-9


def test_what_is_lost_with_a_branch_is_the_same_on_all_ways_there(case):
    knapsack, count = case.knapsack, len(case.units)
    for number, branch in enumerate(case.branches):
        knapsack.levels = list(case.dense())
        at_once = knapsack.more_lost(count + number, 1)
        assert at_once == pytest.approx(knapsack.whole_lost[number])
        lost = 0.0
        for unit in range(count):
            layers = {layer for group in case.units[unit].groups for layer in group.layers}
            if layers <= set(branch.layers):
                lost += knapsack.more_lost(unit, 1)
                knapsack.levels[unit] = 1
        assert lost + knapsack.more_lost(count + number, 1) == pytest.approx(at_once)
        knapsack.levels[count + number] = 1
        assert knapsack.more_lost(count + number, 0) == pytest.approx(lost - at_once)
        for unit in range(count):
            if knapsack.levels[unit]:
                assert knapsack.more_lost(unit, 0) == 0


def test_a_branch_counts_what_it_changes_and_more_the_fewer_are_left():
    net = build_model("resnet_20")
    graph = trace_channels(net, example_images("resnet_20"))
    found, scores = branches(graph), score_filters(net, graph, "l1")
    model = SimpleNamespace(branches=found, stops=lambda number: [1])
    changes = {branch.last: float(1 + number) for number, branch in enumerate(found)}
    lost, plain = branches_lost(model, scores, changes), branches_lost(model, scores, {})
    typical = median(changes.values())
    for branch, of, own in zip(found, lost, plain, strict=True):
        assert of == pytest.approx(own * changes[branch.last] / typical)
    knapsack = Knapsack([], [], model, lost)
    for number, gone in ((1, 0), (2, 0), (2, 1)):
        knapsack.levels = [0] * len(found)
        knapsack.levels[0], knapsack.levels[1] = 1, gone  # of the three in the first stage
        assert knapsack.more_lost(number, 1) == pytest.approx(lost[number] * 3 / (3 - 1 - gone))
    knapsack.levels = [1] * 3 + [0] * (len(found) - 3)
    assert knapsack.more_lost(3, 1) == pytest.approx(lost[3])


def test_widths_are_full_blocks_or_fours_where_they_are_narrower(case):
    for unit, level in zip(case.units, case.knapsack.within(0.6), strict=False):
        whole, left = unit.rungs[0].stays, unit.rungs[level].stays
        last = level == len(unit.rungs) - 1
        if len(left) == 1 and left != whole and not last:
            assert left[0] % (8 if whole[0] >= 16 else 4) == 0


def test_a_scan_is_read_between_its_rates_and_not_beyond(case):
    unit = case.units[0]
    lost = scan_lost(unit, {0.0: (0.0, 0.0), 0.4: (0.2, 1.0), 0.6: (0.2, 3.0)})
    for rung, found in zip(unit.rungs, lost, strict=True):
        start = float(rung.start)
        if start <= 0.4:
            assert found == pytest.approx(start / 0.4 * 0.201)
        elif start <= 0.6:
            assert 0.201 < found <= 0.203
        else:
            assert found > 100
