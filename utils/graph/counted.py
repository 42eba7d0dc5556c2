"""Sizes that remember which channels they count.

The shape of a traced value is given out in these numbers. They compute as plain ones do; where one
ends up in arithmetic on tensors, the channels it counts must all stay.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class CountedInt(int):
    """A number of channels: `labels` are those it counts, in order if it is `exact`."""

    labels: Tensor
    exact: bool


class CountedFloat(float):
    """A number that was computed from numbers of channels."""

    labels: Tensor


def counted(value: Any, labels: Tensor, *, exact: bool = False) -> Any:
    """Return the number with the labels that it counts."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    number = CountedInt(value) if isinstance(value, int) else CountedFloat(value)
    number.labels = labels
    if isinstance(value, int):
        number.exact = exact
    return number


def labels_counted(values: Any) -> Tensor | None:
    """Return all labels that the numbers in (nested) arguments count, None if there are none."""
    found = [number.labels for number in numbers_in(values)]
    return torch.cat(found).unique() if found else None


def numbers_in(values: Any) -> list[Any]:
    """Return the counted numbers in (nested) arguments."""
    if isinstance(values, CountedInt | CountedFloat):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [number for value in values for number in numbers_in(value)]


def _follow(name: str) -> Callable[..., Any]:
    plain = getattr(operator, name, None) or {"divmod": divmod}[name]

    def forward(self: Any, *others: Any) -> Any:
        return _computed(plain, self, *others)

    return forward


def _reversed(name: str) -> Callable[..., Any]:
    plain = getattr(operator, name)
    return lambda self, other: _computed(plain, other, self)


def _computed(plain: Callable[..., Any], *values: Any) -> Any:
    if not all(isinstance(value, int | float) for value in values):
        return NotImplemented
    bare = [_bare(value) for value in values]
    result = plain(*bare)
    labels = labels_counted(values)
    if isinstance(result, tuple):
        return tuple(counted(part, labels) for part in result)
    kept = isinstance(values[0], CountedInt) and result == bare[0] and values[0].exact
    return counted(result, labels, exact=kept)


def _bare(value: Any) -> Any:
    if isinstance(value, CountedInt):
        return int.__add__(value, 0)
    return float.__add__(value, 0.0) if isinstance(value, CountedFloat) else value


_TWO = "add sub mul floordiv truediv mod pow".split()
for _name in _TWO:
    for _class in (CountedInt, CountedFloat):
        setattr(_class, f"__{_name}__", _follow(_name))
        setattr(_class, f"__r{_name}__", _reversed(_name))
for _class in (CountedInt, CountedFloat):
    for _name in ("neg", "pos", "abs"):
        setattr(_class, f"__{_name}__", _follow(_name))
