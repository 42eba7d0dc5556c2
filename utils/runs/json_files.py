"""Files of JSON, read: of bounded size and depth, without NaN, and checked by a schema."""

import json
import math
import os
from typing import Any

from utils.runs.regular_file import read_text
from utils.runs.schema import check

MOST_BYTES = 64 * 2**20
_MOST_DEPTH = 100  # of lists and objects in each other


def read_json(path: str | os.PathLike, schema: Any, expected: str) -> Any:
    """Return the value in a JSON file, which fits the schema.

    `expected` says what the file should be, in the error message: "a run's options".

    Raises:
        ValueError: no such file, or no regular one; no JSON, and in which line; NaN or an infinity;
            another value than the schema says.
    """
    text = read_text(path, "file", expected, most_bytes=MOST_BYTES)
    value = _parsed(text, f"{path} is not JSON", expected)
    check(value, schema, str(path), expected)
    return value


def read_json_line(line: str, schema: Any, source: str, expected: str) -> Any:
    """Return the value of a line of JSON that fits the schema; `source` names file and line.

    Raises:
        ValueError: as `read_json` does.
    """
    value = _parsed(line, f"{source} is not JSON", expected, one_line=True)
    check(value, schema, source, expected)
    return value


def _parsed(text: str, refusal: str, expected: str, *, one_line: bool = False) -> Any:
    """Return the value; `refusal` begins the message if there is none."""
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if one_line else f"line {error.lineno}"
        raise ValueError(f"{refusal} ({place}: {error.msg}): expected {expected}") from None
    except RecursionError:
        raise ValueError(f"{refusal} (nested too deep): expected {expected}") from None
    except ValueError as error:  # NaN, or a number of too many digits
        raise ValueError(f"{refusal} ({error}): expected {expected}") from None
    if _depth(value) > _MOST_DEPTH:
        raise ValueError(f"{refusal} (nested too deep): expected {expected}")
    return value


def _depth(value: Any) -> int:
    """Return how many lists and objects lie in each other, counted up to one more than allowed."""
    depth, level = 0, [value]
    while level and depth <= _MOST_DEPTH:
        level = [part for part in level if isinstance(part, dict | list)]
        depth += bool(level)
        level = [x for part in level for x in (part.values() if isinstance(part, dict) else part)]
    return depth


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON's")


def _finite(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word[:20]} is too large a number")
    return value
