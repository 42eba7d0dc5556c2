"""Criteria give what slow loops over filters give."""

import itertools

import pytest
import torch

from utils.pruning.criteria import (
    WEIGHT_CRITERIA,
    first,
    fpgm,
    input_energy,
    l1,
    l2,
    random,
    weight_scores,
)

SHAPES = [(8, 3, 3, 3), (5, 7, 1, 1), (1, 2, 3, 3), (6, 1, 5, 5), (4, 9)]


def weight_of(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def distance(a, b):
    return float((a.double() - b.double()).pow(2).sum().sqrt())


@pytest.mark.parametrize("shape", SHAPES)
def test_l1_is_the_sum_of_absolute_weights(shape):
    weight = weight_of(shape)
    slow = [sum(abs(x) for x in kernel.flatten().tolist()) for kernel in weight]
    torch.testing.assert_close(l1(weight), torch.tensor(slow))


@pytest.mark.parametrize("shape", SHAPES)
def test_l2_is_the_length_of_the_filter(shape):
    weight = weight_of(shape)
    slow = [distance(kernel, torch.zeros_like(kernel)) for kernel in weight]
    torch.testing.assert_close(l2(weight), torch.tensor(slow))


@pytest.mark.parametrize("shape", SHAPES)
def test_fpgm_is_the_sum_of_distances_to_the_other_filters(shape):
    weight = weight_of(shape)
    slow = [sum(distance(a, b) for b in weight) for a in weight]
    torch.testing.assert_close(fpgm(weight), torch.tensor(slow, dtype=torch.float64))


def test_fpgm_sees_the_smallest_difference_between_filters():
    filter_ = weight_of((1, 3, 3, 3))
    weight = torch.cat([filter_, filter_, filter_ * (1 + 1e-6), filter_ * (1 + 3e-6)])
    slow = [sum(distance(a, b) for b in weight) for a in weight]
    torch.testing.assert_close(fpgm(weight), torch.tensor(slow).double(), rtol=1e-6, atol=0)
    assert fpgm(filter_.expand(4, 3, 3, 3) * 1e6).tolist() == [0.0] * 4


@pytest.mark.parametrize("criterion", ["l1", "l2", "fpgm"])
def test_a_criterion_follows_a_permutation_of_the_filters(criterion):
    weight = weight_of((8, 3, 3, 3))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    score = weight_scores(criterion, {"conv": weight})["conv"]
    torch.testing.assert_close(
        weight_scores(criterion, {"conv": weight[order]})["conv"], score[order]
    )


@pytest.mark.parametrize("criterion", ["l1", "l2", "fpgm"])
def test_a_layers_scores_depend_on_no_other_layer(criterion):
    weights = {f"conv{i}": weight_of(shape, i) for i, shape in enumerate(SHAPES)}
    together = weight_scores(criterion, weights)
    assert list(together) == list(weights)
    for conv, weight in weights.items():
        assert torch.equal(together[conv], weight_scores(criterion, {conv: weight})[conv])


@pytest.mark.parametrize("shape", SHAPES)
def test_first_falls_from_filter_to_filter_whatever_the_weights(shape):
    scores = first(weight_of(shape))
    assert scores.tolist() == [-float(i) for i in range(shape[0])]


@pytest.mark.parametrize("shape, groups", [((8, 3, 3, 3), 1), ((6, 2, 5, 5), 3), ((4, 9), 1)])
def test_input_energy_is_the_sum_over_the_filters_that_read_the_channel(shape, groups):
    weight = weight_of(shape)
    expected = torch.zeros(shape[1] * groups, dtype=torch.float64)
    for f in range(shape[0]):
        for c in range(shape[1]):
            block = f // (shape[0] // groups)
            expected[block * shape[1] + c] += float(weight[f, c].double().square().sum())
    torch.testing.assert_close(input_energy(weight, groups), expected)


def test_random_scores_follow_the_seed_alone():
    weights = {f"conv{i}": weight_of((16, 3, 3, 3), i) for i in range(3)}
    state = torch.get_rng_state()
    scores = [weight_scores("random", weights, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    for conv in weights:
        first, again, other = (s[conv] for s in scores)
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert first.shape == (16,) and float(first.min()) >= 0 and float(first.max()) < 1


def test_layers_get_different_random_scores():
    scores = weight_scores("random", {f"conv{i}": weight_of((16, 3)) for i in range(4)})
    for a, b in itertools.combinations(scores.values(), 2):
        assert not torch.equal(a, b)


def test_random_scores_do_not_look_at_the_weights():
    scores = [random(weight_of((8, 3), i), torch.Generator().manual_seed(0)) for i in range(2)]
    assert torch.equal(*scores)


@pytest.mark.parametrize("criterion", [*WEIGHT_CRITERIA, "random"])
def test_every_criterion_gives_one_score_a_filter(criterion):
    scores = weight_scores(criterion, {"conv": weight_of((8, 3, 3, 3))})
    assert scores["conv"].shape == (8,) and scores["conv"].isfinite().all()


@pytest.mark.parametrize("criterion", ["L1", "rank", "", "norm"])
def test_an_unknown_criterion_is_an_error(criterion):
    message = f"unknown criterion '{criterion}': expected one of l1, l2, fpgm.*, random"
    with pytest.raises(ValueError, match=message):
        weight_scores(criterion, {})
