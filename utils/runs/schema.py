"""Schemas of what files hold: a value is checked whole, and what is wrong with it is named.

A schema is a `Kind`; or `{name: schema}`, an object that has these fields and perhaps others; or
`[schema]`, a list of such values; or a tuple of schemas, all of which must fit, in their order.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_MOST_SHOWN = 60  # characters of a value in a message


class Kind(NamedTuple):
    """What a value must be, in words, and whether it is."""

    words: str
    fits: Callable[[Any], bool]


class Optional(NamedTuple):
    """The schema of a field that may be absent."""

    schema: Any


class Nullable(NamedTuple):
    """The schema of what may be None instead."""

    schema: Any


class MapOf(NamedTuple):
    """The schema of an object's values, whatever their names."""

    schema: Any


TEXT = Kind("text", lambda value: isinstance(value, str))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a finite number", lambda value: _is_number(value) and math.isfinite(value))
TENSOR = Kind("a plain tensor", lambda value: _is_plain_tensor(value))


def whole(low: int, high: int = 2**63 - 1) -> Kind:
    """Return the kind of whole numbers from `low` to `high`, both included."""
    upper = "" if high == 2**63 - 1 else f", at most {high}"
    return Kind(
        f"a whole number, at least {low}{upper}",
        lambda value: _is_number(value) and isinstance(value, int) and low <= value <= high,
    )


def number(low: float, below: float = math.inf) -> Kind:
    """Return the kind of finite numbers that are at least `low` and less than `below`."""
    upper = "" if below == math.inf else f", less than {below:g}"
    return Kind(
        f"a number, at least {low:g}{upper}",
        lambda value: NUMBER.fits(value) and low <= value < below,
    )


def one_of(*values: Any) -> Kind:
    """Return the kind of these very values."""
    return Kind(
        "one of " + ", ".join(map(str, values)),
        lambda value: any(type(value) is type(known) and value == known for known in values),
    )


def check(value: Any, schema: Any, source: str, expected: str, place: str = "") -> None:
    """Check that `value`, at `place` in what `source` names, fits the schema.

    `expected` says what the whole should be: "a run's budget".

    Raises:
        ValueError: the first value that does not, where it stands, and what was expected.
    """
    if isinstance(schema, Nullable):
        if value is not None:
            check(value, schema.schema, source, expected, place)
    elif isinstance(schema, Kind):
        if not schema.fits(value):
            raise _refusal(value, schema.words, source, expected, place)
    elif isinstance(schema, tuple) and not isinstance(schema, MapOf):
        for part in schema:
            check(value, part, source, expected, place)
    elif isinstance(schema, list):
        if not isinstance(value, list | tuple):
            raise _refusal(value, "a list", source, expected, place)
        for index, item in enumerate(value):
            check(item, schema[0], source, expected, f"{place}[{index}]")
    else:
        if not isinstance(value, dict):
            raise _refusal(value, "an object", source, expected, place)
        _check_fields(value, schema, source, expected, place)


def in_words(value: Any) -> str:
    """Return what a value is, in a few words: an object by its names, what is short as it is."""
    if isinstance(value, Mapping):
        names = ", ".join(repr(name) for name in list(value)[:5])
        more = f" and {len(value) - 5} more" if len(value) > 5 else ""
        return f"an object with {names}{more}" if value else "an empty object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    shown = repr(value) if isinstance(value, str | int | float) else type(value).__name__
    return shown if len(shown) <= _MOST_SHOWN else shown[: _MOST_SHOWN - 3] + "..."


def _check_fields(value: Any, schema: Any, source: str, expected: str, place: str) -> None:
    fields = dict.fromkeys(value, schema.schema) if isinstance(schema, MapOf) else schema
    for name, part in fields.items():
        optional = isinstance(part, Optional)
        if name in value:
            inside = f"{place}.{name}" if place else str(name)
            check(value[name], part.schema if optional else part, source, expected, inside)
        elif not optional:
            where = f" in {place!r}" if place else ""
            raise ValueError(f"{source} lacks {name!r}{where}: expected {expected}")


def _refusal(value: Any, words: str, source: str, expected: str, place: str) -> ValueError:
    if place:
        return ValueError(f"{source}: {place!r} is {in_words(value)}, expected {words}")
    return ValueError(f"{source} holds {in_words(value)}: expected {expected}, {words}")


def _is_plain_tensor(value: Any) -> bool:
    """True for a tensor that is dense, not quantized, and has its values."""
    if type(value).__name__ not in ("Tensor", "Parameter"):
        return False
    odd = value.is_meta or value.is_quantized or value.is_nested
    return not odd and str(value.layout) == "torch.strided"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
