"""The values of a plan as JSON values, of bounded number and depth."""

import datetime
import math
import re
from typing import Any

MOST_VALUES = 20_000  # of one plan: YAML's aliases turn a kilobyte into more than memory holds
MOST_NESTED = 20


def json_values(value: Any) -> Any:
    """`value` as None, bool, int, float, str, lists, and dicts with string keys.

    Dates become text, tuples become lists, and half surrogate pairs become U+FFFD.

    Raises ValueError for infinities, other objects, and too many or too deeply nested values.
    """
    return _converted(value, 0, [MOST_VALUES])


def _converted(value: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"expected at most {MOST_VALUES} values in a plan, found more")
    if depth > MOST_NESTED:
        raise ValueError(f"expected lists and mappings at most {MOST_NESTED} deep, found deeper ones")
    if isinstance(value, dict):
        return {str(_scalar(key)): _converted(inner, depth + 1, left) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_converted(inner, depth + 1, left) for inner in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected a finite number, found {value}")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise ValueError(f"expected text, a number, a list or a mapping, found {type(value).__name__}")
