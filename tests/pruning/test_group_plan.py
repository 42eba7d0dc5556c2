"""Plans for groups: how many channels go, which ones, and that tied filters go together."""

import copy
import random
from fractions import Fraction

import pytest
import torch

from tests.networks import STEPS, Chain, Gate, PaddedResidual, Residual, randomized
from utils.graph.channel_graph import trace_channels
from utils.graph.groups import ChannelGroup, channel_groups
from utils.pruning.group_plan import plan_groups
from utils.removal.masks import ChannelMasks
from utils.removal.surgery import remove_filters

IMAGE = torch.zeros(1, 3, 8, 8)


def group(*layers: str, channels: int = 8, protected: bool = False) -> ChannelGroup:
    """Return a group that ties filter i of every layer."""
    members = tuple(tuple((layer, i) for layer in layers) for i in range(channels))
    return ChannelGroup(layers, members, protected, ())


def ascending(*layers: str, count: int = 8) -> dict[str, torch.Tensor]:
    """Return scores by which the lowest indices go first."""
    return {layer: torch.arange(count, dtype=torch.float32) for layer in layers}


def random_scores(filters: dict[str, int], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(count, generator=generator) for name, count in filters.items()}


def only(plan):
    (layer,) = plan.layers
    return layer


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.29, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("count", [1, 2, 10, 67])
def test_the_lowest_int_of_rate_times_channels_go(count, rate):
    plan = plan_groups([group("a", channels=count)], ascending("a", count=count), rate)
    assert only(plan).kept == tuple(range(int(rate * count), count))
    assert (only(plan).rate, only(plan).filters, only(plan).reason) == (rate, count, "")


@pytest.mark.parametrize("multiple, stays", [(1, 3), (2, 4), (4, 4), (5, 5), (8, 8), (100, 8)])
def test_what_stays_is_rounded_up_to_a_multiple(multiple, stays):
    layer = only(plan_groups([group("a")], ascending("a"), 0.7, round_to=multiple))
    assert layer.kept == tuple(range(8 - stays, 8))
    expected = f"rounded up to a multiple of {multiple}" if stays > 3 else ""
    assert layer.reason == expected


@pytest.mark.parametrize("multiple, stays", [(1, 2), (4, 2), (6, 3), (8, 2), (16, 4), (24, 6)])
def test_a_channel_of_several_filters_is_rounded_by_its_filters(multiple, stays):
    members = tuple(tuple(("a", 4 * i + k) for k in range(4)) for i in range(6))
    heads = ChannelGroup(("a",), members, False, ())
    layer = only(plan_groups([heads], ascending("a", count=24), 0.7, round_to=multiple))
    assert layer.kept == tuple(range(4 * (6 - stays), 24))


@pytest.mark.parametrize("minimum, stays", [(1, 1), (3, 3), (8, 8), (9, 8)])
def test_a_minimum_of_channels_stays(minimum, stays):
    layer = only(plan_groups([group("a")], ascending("a"), 0.9, minimum=minimum))
    assert layer.kept == tuple(range(8 - stays, 8))
    assert layer.reason == (f"floor of {minimum} held" if stays > 1 else "")


def test_the_floor_is_rounded_too():
    layer = only(plan_groups([group("a")], ascending("a"), 0.9, minimum=3, round_to=4))
    assert layer.kept == (4, 5, 6, 7)
    assert layer.reason == "floor of 3 held; rounded up to a multiple of 4"


def test_a_channel_scores_the_mean_over_its_scored_filters():
    scores = {"a": torch.tensor([1.0, 0.0, 9.0]), "b": torch.tensor([5.0, 0.0, 0.0])}
    plan = plan_groups([group("a", "b", "unscored", channels=3)], scores, 0.5)  # 3, 0, 4.5
    assert [layer.kept for layer in plan.layers] == [(0, 2)] * 3
    assert [layer.reason for layer in plan.layers] == [
        "tied with b, unscored",
        "tied with a, unscored",
        "tied with a, b",
    ]


def test_of_equal_scores_the_lower_index_goes():
    scores = {"a": torch.tensor([2.0, 1.0, 1.0, 2.0, 1.0, 2.0])}
    assert only(plan_groups([group("a", channels=6)], scores, 0.34)).kept == (0, 3, 4, 5)


def test_protected_groups_and_groups_without_scores_stay_whole():
    groups = [group("a", protected=True), group("b")]
    plan = plan_groups(groups, ascending("a"), 0.5)
    assert plan.masks() == {}
    assert [x.reason for x in plan.layers] == ["protected: reaches the output", "not scored"]


@pytest.mark.parametrize("rate", [0.1, 0.55, 0.7])
@pytest.mark.parametrize("layers", [3, 6, 9, 29])
def test_layers_of_one_rate_lose_what_one_of_them_alone_would(rate, layers):
    """The mean of equal rates is that rate: (0.7 + 0.7 + 0.7) / 3 is less than 0.7."""
    names = [f"conv{number}" for number in range(layers)]
    tied = group(*names, channels=20)
    plan = plan_groups([tied], ascending(*names, count=20), dict.fromkeys(names, rate))
    assert {layer.removed for layer in plan.layers} == {int(rate * 20)}


def test_on_the_way_a_part_of_each_group_goes_of_what_goes_in_the_end():
    tied, more = group("a", "b", channels=10), group("a2", channels=7)
    scores = ascending("a", "b", count=10) | ascending("a2", count=7)
    rates = {"a": 0.5, "b": 0.9, "a2": 0.8}  # 7 of 10, and 5 of 7
    for step in range(1, 5):
        plan = plan_groups([tied, more], scores, rates, part=Fraction(step, 4))
        gone = {layer.conv: layer.removed for layer in plan.layers}
        assert gone == {"a": -(-7 * step // 4), "b": -(-7 * step // 4), "a2": -(-5 * step // 4)}


def test_layers_that_are_not_named_are_not_pruned():
    plan = plan_groups([group("a"), group("b")], ascending("a", "b"), {"b": 0.25})
    assert plan.num_kept() == {"a": 8, "b": 6}


def test_a_group_takes_the_mean_of_its_layers_rates():
    tied = group("a", "b", "unnamed")
    plan = plan_groups([tied], ascending("a", "b", "unnamed"), {"a": 0.25, "b": 0.75})
    assert plan.num_kept() == {"a": 4, "b": 4, "unnamed": 4}


def test_a_layer_of_several_groups_loses_its_share_of_each():
    graph = trace_channels(Chain([PaddedResidual]), IMAGE)
    groups = channel_groups(graph, across_sums=True)
    plan = plan_groups(groups, ascending("stem") | ascending("steps.0.conv", count=12), 0.5)
    kept = {layer.conv: layer.kept for layer in plan.layers}
    assert kept["stem"] == (4, 5, 6, 7)
    assert kept["steps.0.conv"] == (6, 7, 8, 9, 10, 11)  # the stem's, and half of 0, 1, 10, 11


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rates": 1.0}, "expected 0 <= rate < 1"),
        ({"rates": -0.5}, "expected 0 <= rate < 1"),
        ({"rates": {"nowhere": 0.5}}, "no layer 'nowhere' in the network: expected one of its"),
        ({"scores": ascending("nowhere")}, "no layer 'nowhere' in the network: expected one of"),
        ({"round_to": 0}, "round_to is 0: expected at least 1"),
        ({"minimum": 0}, "minimum is 0: expected at least 1"),
        ({"scores": {"a": torch.full((8,), torch.nan)}}, "scores of 'a': 8 of 8 are NaN or Inf"),
        ({"scores": ascending("a", count=7)}, r"scores of 'a': expected \[8\], got \[7\]"),
    ],
)
def test_bad_input_is_one_sentence(change, message):
    options = {"scores": ascending("a"), "rates": 0.5} | change
    with pytest.raises(ValueError, match=message) as error:
        plan_groups([group("a")], **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("across_sums", [False, True])
def test_tied_filters_stay_or_go_together(across_sums):
    graph = trace_channels(Chain([Residual, Gate, PaddedResidual]), IMAGE)
    groups = channel_groups(graph, across_sums=across_sums)
    plan = plan_groups(groups, random_scores(graph.filters(), seed=0), 0.6)
    kept = {layer.conv: set(layer.kept) for layer in plan.layers}
    assert kept.keys() == graph.filters().keys()
    for tied in groups:
        for channel in tied.channels:
            assert len({index in kept[layer] for layer, index in channel}) == 1


@pytest.mark.parametrize("across_sums", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_planned_networks_compute_what_masked_ones_compute(seed, across_sums):
    draw = random.Random(seed)
    steps = [draw.choice(STEPS) for _ in range(draw.randint(2, 6))]
    model = randomized(Chain(steps, flat=draw.random() < 0.5), seed)
    graph = trace_channels(model, IMAGE)
    groups = channel_groups(graph, across_sums=across_sums)
    rate, multiple = draw.choice([0.2, 0.5, 0.8]), draw.choice([1, 2, 4])
    scores = random_scores(graph.filters(), seed)
    masks = plan_groups(groups, scores, rate, round_to=multiple).masks()
    masked, removed = copy.deepcopy(model), remove_filters(model, graph, masks)
    ChannelMasks(masked, graph, masks).apply()
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    for training in (False, True):
        outputs = [network.train(training)(images) for network in (removed, masked)]
        torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
