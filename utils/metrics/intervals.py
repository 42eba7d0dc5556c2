"""What a few runs, or a few images, can tell: intervals of means and of differences."""

import math
from collections.abc import Sequence
from functools import cache
from statistics import mean, stdev

from utils.metrics.accuracy import Accuracy


def student_t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return the low and high end of the `level` confidence interval of the mean of `values`.

    Covers what differs between the values, such as the seeds of runs, taken as independent and
    normal. A paired difference's interval is that of the pairs' differences.

    Raises:
        ValueError: there are fewer than two values, one is not finite, or `level` is not a share.
    """
    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        raise ValueError(f"interval of a mean: expected two or more finite values, got {values}")
    half = student_t_quantile(len(values) - 1, level) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


@cache
def student_t_quantile(degrees_of_freedom: int, level: float = 0.95) -> float:
    """Return the t with `level` of Student's distribution between -t and t, by bisection.

    Raises:
        ValueError: there is no degree of freedom, or `level` is not between 0 and 1.
    """
    if degrees_of_freedom < 1 or not 0 < level < 1:
        raise ValueError(
            "Student's t: expected degrees of freedom >= 1 and a level between 0 and 1, "
            f"got {degrees_of_freedom} and {level}"
        )
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / sqrt(degrees of freedom)
    for _ in range(60):  # halvings: more than a float has bits
        middle = (low + high) / 2
        if _share_within(middle, degrees_of_freedom) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees_of_freedom) * math.tan(low)


def _share_within(angle: float, degrees_of_freedom: int) -> float:
    """Return P(|T| < sqrt(n) tan(angle)) for n degrees of freedom.

    A finite sum: Abramowitz and Stegun, 26.7.3 (odd n) and 26.7.4 (even n).
    """
    n, odd = degrees_of_freedom, degrees_of_freedom % 2
    term = math.sin(angle) * (math.cos(angle) if odd else 1)
    total = term if n > 1 else 0.0
    for power in range(2 + odd, n - 1, 2):
        term *= math.cos(angle) ** 2 * (power - 1) / power
        total += term
    return 2 / math.pi * (angle + total) if odd else total


def difference_interval_percent(one: Accuracy, other: Accuracy) -> tuple[float, float]:
    """Return the low and high end, in points, of the 95% interval of `one` minus `other`.

    Newcombe's hybrid score interval (1998, method 10), from both Wilson intervals. It takes the
    images of both for independent draws; where both answer the same images it is wider than what a
    comparison image by image would give. The seed of a training is not covered.
    """
    points = one.top1_percent - other.top1_percent
    (low, high), (other_low, other_high) = one.interval_percent(), other.interval_percent()
    below = math.hypot(one.top1_percent - low, other_high - other.top1_percent)
    above = math.hypot(high - one.top1_percent, other.top1_percent - other_low)
    return points - below, points + above
