"""Plans keep the filters that the official code keeps, and say where only the index decided."""

import hashlib
import json
from fractions import Fraction
from functools import cache

import pytest
import torch

from models.registry import build_model
from tests.reference import NETWORKS, needs_reference, published_ranks, reference
from utils.options.networks import outline
from utils.paper.rates import read_rates
from utils.pruning.plan import LayerPlan, PruningPlan, plan_by_rates
from utils.rank.rank_files import read_ranks


def kept_by_hand(scores, removed):
    """Sort (score, index) pairs and drop the first ones."""
    pairs = sorted((float(score), index) for index, score in enumerate(scores))
    return tuple(sorted(index for _, index in pairs[removed:]))


def plan_of(scores, rate):
    return plan_by_rates({"conv": torch.as_tensor(scores)}, [rate]).layers[0]


def random_scores(filters, levels, seed=0):
    return torch.randint(
        0, levels, (filters,), generator=torch.Generator().manual_seed(seed)
    ).float()


@pytest.mark.parametrize("levels", [1, 3, 1000])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.77, 0.99])
def test_the_lowest_scores_go_and_of_equal_ones_the_lowest_index(levels, rate):
    for filters in (1, 2, 16, 67):
        scores = random_scores(filters, levels)
        layer = plan_of(scores, rate)
        assert layer.kept == kept_by_hand(scores, int(rate * filters))
        assert (layer.filters, layer.removed) == (filters, int(rate * filters))
        assert layer.mask().nonzero().flatten().tolist() == list(layer.kept)


def test_on_the_way_a_part_goes_of_what_goes_in_the_end():
    scores = {"a": random_scores(16, 100), "b": random_scores(5, 100)}
    for step in range(1, 8):
        plan = plan_by_rates(scores, [0.6, 0.4], Fraction(step, 7))
        for layer, final in zip(plan.layers, (9, 2), strict=True):
            expected = kept_by_hand(scores[layer.conv], -(-final * step // 7))
            assert layer.kept == expected


def test_a_rate_of_zero_keeps_all():
    plan = plan_by_rates({"a": random_scores(8, 3), "b": random_scores(5, 3)}, [0.0, 0.0])
    assert [layer.kept for layer in plan.layers] == [tuple(range(8)), tuple(range(5))]
    assert plan.masks() == {} and plan.num_kept() == {"a": 8, "b": 5}


@pytest.mark.parametrize(
    ("scores", "cut", "tied"),
    [
        ([1.0, 2.0, 3.0, 4.0], 2.0, False),
        ([1.0, 2.0, 2.0, 4.0], 2.0, True),
        ([2.0, 1.0, 4.0, 2.0], 2.0, True),
        ([1.0, 1.0, 2.0, 2.0], 1.0, False),
        ([0.0, 0.0, 0.0, 0.0], 0.0, True),
    ],
)
def test_a_tie_at_the_cut_is_flagged(scores, cut, tied):
    layer = plan_of(scores, 0.5)
    assert (layer.cut_score, layer.tied_at_cut) == (cut, tied)


def test_where_nothing_goes_nothing_is_tied():
    layer = plan_of([1.0, 1.0], 0.0)
    assert (layer.cut_score, layer.tied_at_cut) == (None, False)


def test_masks_of_the_first_layers_only():
    scores = {name: random_scores(8, 100, seed) for seed, name in enumerate("abc")}
    plan = plan_by_rates(scores, [0.5, 0.0, 0.5])
    assert list(plan.masks()) == ["a", "c"]
    assert list(plan.masks(first=2)) == ["a"]
    assert plan.masks(first=0) == {}


def test_a_plan_survives_json():
    scores = {name: random_scores(8, 3, seed) for seed, name in enumerate("abc")}
    plan = plan_by_rates(scores, [0.5, 0.0, 0.9])
    assert PruningPlan.from_list(json.loads(json.dumps(plan.as_list()))) == plan


@pytest.mark.parametrize("kept", [(), (-1, 2), (0, 4), (1, 0), (1, 1), (9,)])
def test_impossible_indices_are_an_error(kept):
    message = r"plan for 'conv': kept indices must be ascending, within \[0, 4\), and at least one"
    with pytest.raises(ValueError, match=message):
        LayerPlan("conv", 0.5, 4, kept)


ENTRY = {"conv": "conv", "rate": 0.5, "filters": 4, "kept": [0, 1]}


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {"conv": "conv"},
        {**ENTRY, "kept": None},
        {**ENTRY, "kept": "ab"},
        {**ENTRY, "filters": "4"},
        {**ENTRY, "extra": 1},
    ],
)
def test_an_entry_that_is_no_layer_plan_is_an_error(entry):
    with pytest.raises(ValueError, match="pruning plan: an entry does not fit LayerPlan"):
        PruningPlan.from_list([entry])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers_are_an_error(value):
    with pytest.raises(ValueError, match="scores of 'conv': 2 of 4 are NaN or Inf"):
        plan_of([1.0, value, 2.0, value], 0.5)


@pytest.mark.parametrize("rate", [-0.5, 1.0])
def test_an_impossible_rate_is_an_error(rate):
    with pytest.raises(ValueError, match="expected 0 <= rate < 1"):
        plan_of([1.0, 2.0], rate)


def official_cases():
    nets = reference("kept_indices.json").get("nets", [])
    return [
        pytest.param(n, id=f"{n['arch']} {n['compress_rate']}")
        for n in nets
        if n["arch"] in NETWORKS
    ]


@cache
def published_scores(arch):
    layers, model = outline(arch).layers.layers, build_model(arch)
    filters = {x.conv: model.get_submodule(x.conv).out_channels for x in layers}
    return read_ranks(published_ranks(arch), arch, layers, filters)


def published_plan(arch, text):
    scores, rates = published_scores(arch), read_rates(text, outline(arch))
    rate_of = rates.of_convs({conv: len(score) for conv, score in scores.items()})
    return plan_by_rates(scores, [rate_of[conv] for conv in scores])


def digest(indices):
    return hashlib.sha256(json.dumps(list(indices)).encode()).hexdigest()


@needs_reference
@pytest.mark.parametrize("net", official_cases())
def test_the_published_ranks_keep_the_official_filters(net):
    plan = published_plan(net["arch"], net["compress_rate"])
    official = [facts for facts in net["layers"] if facts["pruned"] is not None]
    for layer, facts in zip(plan.layers, official, strict=True):
        assert f"{layer.conv}.weight" == facts["param"]
        assert (layer.rate, layer.filters) == (facts["rate"], facts["n_filters"])
        assert (layer.removed, len(layer.kept)) == (facts["pruned"], facts["kept"])
        assert layer.tied_at_cut == facts["tie_at_cut"], layer.conv
        assert digest(layer.kept) == facts["sha256_stable"], layer.conv
