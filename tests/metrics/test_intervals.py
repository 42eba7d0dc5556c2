"""Laws of intervals of a mean, and published quantiles of Student's t."""

import math

import pytest
import torch

from utils.metrics.accuracy import Accuracy
from utils.metrics.intervals import (
    difference_interval_percent,
    student_t_interval,
    student_t_quantile,
)

# Two-sided, as printed in tables of Student's t: {degrees of freedom: (90%, 95%, 99%)}.
PRINTED = {
    1: (6.314, 12.706, 63.657),
    2: (2.920, 4.303, 9.925),
    3: (2.353, 3.182, 5.841),
    4: (2.132, 2.776, 4.604),
    5: (2.015, 2.571, 4.032),
    9: (1.833, 2.262, 3.250),
    10: (1.812, 2.228, 3.169),
    30: (1.697, 2.042, 2.750),
    120: (1.658, 1.980, 2.617),
}


@pytest.mark.parametrize("degrees_of_freedom", PRINTED)
def test_quantiles_are_the_printed_ones(degrees_of_freedom):
    found = [student_t_quantile(degrees_of_freedom, level) for level in (0.9, 0.95, 0.99)]
    assert [round(value, 3) for value in found] == list(PRINTED[degrees_of_freedom])


def test_many_degrees_of_freedom_come_to_the_normal_distribution():
    assert student_t_quantile(10_000) == pytest.approx(1.959964, abs=3e-4)


def test_interval_of_three_values_by_hand():
    # mean 2, standard deviation 1, t = 4.30265 at two degrees of freedom
    low, high = student_t_interval([1.0, 2.0, 3.0])
    assert low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)
    assert high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-5)


def test_equal_values_leave_no_width():
    assert student_t_interval([93.2, 93.2]) == (93.2, 93.2)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    draws = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    intervals = [student_t_interval(values) for values in draws.tolist()]
    assert sum(low <= 0 <= high for low, high in intervals) / 1000 == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan]])
def test_too_few_values_and_nan_are_refused(values):
    with pytest.raises(ValueError, match=r"interval of a mean: expected two or more finite values"):
        student_t_interval(values)


@pytest.mark.parametrize(("degrees_of_freedom", "level"), [(0, 0.95), (3, 1.0), (3, 0.0)])
def test_impossible_quantiles_are_refused(degrees_of_freedom, level):
    with pytest.raises(ValueError, match=f"got {degrees_of_freedom} and {level}"):
        student_t_quantile(degrees_of_freedom, level)


def test_difference_of_two_accuracies_is_the_published_example():
    # Newcombe, Statistics in Medicine 17 (1998), Table II, 56/70 - 48/80, method 10
    low, high = difference_interval_percent(Accuracy(56, 70, 0.0), Accuracy(48, 80, 0.0))
    assert (round(low, 2), round(high, 2)) == (5.24, 33.39)


def test_the_other_way_round_a_difference_changes_its_sign():
    one, other = Accuracy(943, 1017, 0.0), Accuracy(1000, 1017, 0.0)
    low, high = difference_interval_percent(one, other)
    assert difference_interval_percent(other, one) == pytest.approx((-high, -low))
    assert low < one.top1_percent - other.top1_percent < high < 0
