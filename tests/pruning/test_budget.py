"""Automatic rates: ladders of rates, allocations in order, and the levels nearest to a target."""

from bisect import bisect_right
from fractions import Fraction
from itertools import pairwise, product

import pytest
import torch
from torch import nn

from models.registry import build_model, example_images
from tests.networks import STEPS, Chain, Residual, randomized
from utils.graph.channel_graph import trace_channels
from utils.graph.groups import ChannelGroup, channel_groups
from utils.pruning.allocation import (
    global_steps,
    losses,
    normalized,
    sensitivity_steps,
    uniform_steps,
)
from utils.pruning.budget import land, levels_after, search
from utils.pruning.compress_rates import num_removed
from utils.pruning.group_plan import plan_groups
from utils.pruning.rate_units import rate_units, rates_at
from utils.pruning.scores import score_filters
from utils.pruning.sensitivity import ScanPoint, parameters_left
from utils.removal.surgery import remove_filters


def group(*layers, channels=8, protected=False):
    members = tuple(tuple((layer, index) for layer in layers) for index in range(channels))
    return ChannelGroup(layers, members, protected, ())


def units_of(sizes, **how):
    """A unit for each of {conv: filters}, with a rate each."""
    groups = [group(conv, channels=size) for conv, size in sizes.items()]
    position_of = {conv: number for number, conv in enumerate(sizes)}
    return rate_units(groups, position_of, **{"max_rate": 0.9, **how})


def decimals(rate):
    return len(f"{rate!r}".partition(".")[2]) if rate else 0


@pytest.mark.parametrize("round_to", [1, 4, 8])
@pytest.mark.parametrize("sizes", [(16,), (12,), (160,), (100,), (64, 32), (160, 112, 224)])
def test_a_ladder_has_every_rate_that_makes_a_difference(sizes, round_to):
    def stays(rate):
        left = [size - num_removed(rate, size) for size in sizes]
        return tuple(
            min(size, -(-n // round_to) * round_to) for n, size in zip(left, sizes, strict=True)
        )

    groups = [group(f"conv{k}", channels=size) for k, size in enumerate(sizes)]
    shared = {f"conv{k}": 0 for k in range(len(sizes))}
    (unit,) = rate_units(groups, shared, max_rate=0.9, round_to=round_to)
    starts = [rung.start for rung in unit.rungs]
    assert starts[0] == 0 and starts == sorted(starts)
    for rung in unit.rungs:
        assert rung.stays == stays(rung.start) == stays(rung.rate) and rung.rate <= 0.9
    for before, after in pairwise(unit.rungs):
        assert before.stays != after.stays
    for thousandth in range(0, 901, 7):  # a rate between two rungs does what the lower one does
        rate = Fraction(thousandth, 1000)
        assert stays(rate) == unit.rungs[bisect_right(starts, rate) - 1].stays


@pytest.mark.parametrize("size", [12, 16, 100, 160])
def test_no_shorter_decimal_removes_as_many(size):
    (unit,) = units_of({"conv": size})
    for gone, rung in enumerate(unit.rungs):
        assert num_removed(rung.rate, size) == gone
        for places in range(1, decimals(rung.rate)):
            shorter = [k / 10**places for k in range(10**places)]
            assert gone not in [num_removed(rate, size) for rate in shorter if rate <= 0.9]


def test_no_conv_loses_more_than_the_highest_rate():
    (unit,) = units_of({"conv": 10}, max_rate=0.7)
    assert unit.rungs[-1].stays == (3,) and unit.rungs[-1].rate == 0.7
    (unit,) = units_of({"conv": 3}, max_rate=0.999)
    assert unit.rungs[-1].stays == (1,)


def test_convs_that_share_a_rate_or_a_group_are_one_unit_and_protected_ones_none():
    groups = [group("a"), group("b", "c"), group("c", "d"), group("e", protected=True), group("f")]
    units = rate_units(groups, {"a": 2, "b": 0, "c": 1, "d": 3, "f": 2}, max_rate=0.5)
    assert [unit.positions for unit in units] == [(0, 1, 3), (2,)]
    assert [len(unit.groups) for unit in units] == [2, 2]
    found = rates_at(units, (1, 4), num_rates=5)
    assert found == (0.2, 0.2, 0.5, 0.2, 0.0)  # int(0.2 * 8) is 1


def test_uniform_raises_the_same_rate_everywhere_conv_by_conv():
    units = units_of({"a": 4, "b": 8})
    assert uniform_steps(units) == [1, 0, 1, 1, 0, 1, 1, 0, 1, 1]
    for taken in range(10):
        levels = levels_after(uniform_steps(units)[:taken], 2)
        reached = [unit.rungs[k].start for unit, k in zip(units, levels, strict=True)]
        following = [
            unit.rungs[k + 1].start
            for unit, k in zip(units, levels, strict=True)
            if k + 1 < len(unit.rungs)
        ]
        assert max(reached) <= min(following)


def test_global_removes_the_lowest_of_all_layers_first():
    units = units_of({"a": 4, "b": 4})
    scores = {"a": torch.tensor([3.0, 1.0, 9.0, 5.0]), "b": torch.tensor([4.0, 2.0, 0.5, 8.0])}
    assert global_steps(units, scores) == [1, 0, 1, 0, 1, 0]  # 0.5, 1, 2, 3, 4, 5
    tied = rate_units(
        [group("a", channels=4), group("b", channels=4)], {"a": 0, "b": 0}, max_rate=0.5
    )
    assert global_steps(tied, scores) == [0, 0]


def test_ranks_are_shares_of_the_full_rank_and_others_of_their_layers_mean():
    scores = {"big": torch.tensor([16.0, 32.0]), "small": torch.tensor([4.0, 8.0])}
    ranks = normalized(scores, {"big": 32, "small": 8})
    assert ranks["big"].tolist() == ranks["small"].tolist() == [0.5, 1.0]
    found = normalized({"a": torch.tensor([-1.0, -3.0]), "dead": torch.zeros(2)})
    assert found["a"].tolist() == [-0.5, -1.5] and found["dead"].tolist() == [0.0, 0.0]


def scan(layers, rights, losses_of=None, rates=(0.25, 0.5)):
    return [
        ScanPoint(layers, rate, 8, 0, 0, 0, right, 100, 1.0 + (losses_of or {}).get(rate, 0.0))
        for rate, right in zip(rates, rights, strict=True)
    ]


def test_losses_add_up_and_never_fall():
    units = rate_units([group("a", "tied"), group("b")], {"a": 0, "b": 0}, max_rate=0.9)
    points = [*scan(("a", "tied"), (70, 72)), *scan(("b",), (85, 60), {0.5: 0.5})]
    (curve,) = losses(units, points, (0.9, 1.0))
    assert [curve[rate][0] for rate in (0.0, 0.25, 0.5)] == pytest.approx([0, 0.25, 0.48])
    assert [curve[rate][1] for rate in (0.0, 0.25, 0.5)] == pytest.approx([0, 0, 0.5])
    (curve,) = losses(units, [*points[:2], *scan(("b",), (90, 99))], (0.9, 1.0))
    assert [curve[rate][0] for rate in (0.25, 0.5)] == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize("missing", [[3], [2, 3]])
def test_an_unfinished_scan_is_refused(missing):
    units = units_of({"a": 8, "b": 8})
    points = [*scan(("a",), (9, 8)), *scan(("b",), (9, 8))]
    left = [point for number, point in enumerate(points) if number not in missing]
    message = rf"the scan has {2 - len(missing)} points of 'b': expected all its 2 rates"
    with pytest.raises(ValueError, match=message):
        losses(units, left, (1.0, 0.0))


def chain_cost(units):
    """The share of MACs of a chain of convs: each costs what it writes times what it reads."""

    def widths(levels):
        return [1, *(u.rungs[k].stays[0] for u, k in zip(units, levels, strict=True)), 1]

    def cost_of(levels):
        return sum(a * b for a, b in pairwise(widths(levels))) / whole

    whole = sum(a * b for a, b in pairwise(widths([0] * len(units))))
    return cost_of


def greedy(curves, units, cost_of, until):
    """The slow obvious version of sensitivity_steps: every increment priced anew at each step."""
    at, levels, steps = [0] * len(units), [0] * len(units), []
    rates = list(curves[0])
    while cost_of(levels) > until:
        prices = {}
        for number, unit in enumerate(units):
            if at[number] + 1 < len(rates):
                low, high = rates[at[number]], rates[at[number] + 1]
                moved = list(levels)
                moved[number] = max(k for k, rung in enumerate(unit.rungs) if rung.start <= high)
                saved = cost_of(levels) - cost_of(moved)
                lost = [
                    b - a for a, b in zip(curves[number][low], curves[number][high], strict=True)
                ]
                prices[number] = [x / saved for x in lost], moved
        number = min(prices, key=lambda n: (prices[n][0], n))
        steps += [number] * (prices[number][1][number] - levels[number])
        levels = prices[number][1]
        at[number] += 1
    return steps


@pytest.mark.parametrize("seed", range(5))
def test_sensitivity_takes_the_least_accuracy_lost_per_cost_saved_from_each_state(seed):
    draw = torch.Generator().manual_seed(seed)
    units = units_of({"a": 8, "b": 16, "c": 40, "d": 20})
    cost_of, rates = chain_cost(units), (0.25, 0.5, 0.75)
    curves = []
    for _ in units:
        rising = torch.rand((3, 2), generator=draw, dtype=torch.float64).cumsum(0).tolist()
        curves.append({0.0: (0.0, 0.0)} | dict(zip(rates, map(tuple, rising), strict=True)))
    found = sensitivity_steps(units, curves, cost_of, until=0.3)
    assert found == greedy(curves, units, cost_of, until=0.3)
    assert cost_of(levels_after(found, 4)) <= 0.3


def test_of_units_that_lose_no_accuracy_the_least_cross_entropy_decides():
    units = units_of({"a": 8, "b": 8})
    curves = [{0.0: (0.0, 0.0), 0.5: (0.0, 0.2)}, {0.0: (0.0, 0.0), 0.5: (0.0, 0.1)}]
    assert sensitivity_steps(units, curves, chain_cost(units), until=0.7) == [1, 1, 1, 1]
    everything = sensitivity_steps(units, curves, chain_cost(units))
    assert levels_after(everything, 2) == (4, 4)  # no unit goes beyond what was scanned


@pytest.mark.parametrize("target", [0.05, 0.31, 0.5, 0.77, 0.98])
@pytest.mark.parametrize("round_to", [1, 4])
def test_no_move_of_one_or_two_units_comes_nearer(target, round_to):
    units = units_of({"a": 12, "b": 16, "c": 8}, round_to=round_to)
    cost_of = chain_cost(units)
    steps = uniform_steps(units)
    levels = search(steps, len(units), cost_of, target)
    on_the_way = [cost_of(levels_after(steps[:n], len(units))) for n in range(len(steps) + 1)]
    near = 0.005 * target
    missed = abs(cost_of(levels) - target)
    assert missed <= max(near, min(abs(cost - target) for cost in on_the_way))
    landed = land(units, levels, cost_of, target)
    found = abs(cost_of(landed) - target)
    assert found <= missed
    for move in product((-1, 0, 1), repeat=3):
        moved = [level + rung for level, rung in zip(landed, move, strict=True)]
        inside = all(0 <= k < len(unit.rungs) for k, unit in zip(moved, units, strict=True))
        if inside and 0 in move:
            within = near if move.count(0) == 2 else 2 * near
            assert found <= max(within, abs(cost_of(moved) - target))


def test_a_search_asks_for_few_costs():
    units, asked = units_of(dict.fromkeys("abcdefgh", 64)), []

    def cost_of(levels):
        asked.append(levels)
        return 1 - sum(levels) / 480

    search(uniform_steps(units), len(units), cost_of, 0.4444)
    assert len(asked) <= 9  # of 456 steps


def assert_parameters_counted(model, graph, *, across_sums, scored=None):
    scores = score_filters(model, graph, "l1")
    scores = {layer: scores[layer] for layer in scored or scores}
    groups = channel_groups(graph, across_sums=across_sums)
    masks = plan_groups(groups, scores, 0.4).masks()
    slim = remove_filters(model, graph, masks)
    left = parameters_left(model, graph, masks)
    assert left == sum(parameter.numel() for parameter in slim.parameters())
    assert left < parameters_left(model, graph, {}) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("across_sums", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_parameters_left_are_those_of_the_removed_network(step, across_sums):
    image = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    model = randomized(Chain([Residual, step]), seed=0)
    assert_parameters_counted(model, trace_channels(model, image), across_sums=across_sums)


@pytest.mark.parametrize("arch", ["resnet_8", "mobilenet_v1"])
def test_parameters_left_of_registered_networks(arch):
    model, example = build_model(arch), example_images(arch)[..., :32, :32]
    convs = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    graph = trace_channels(model, example)
    assert_parameters_counted(model, graph, across_sums=False, scored=convs)
