"""Values of a plan are plain JSON: what a file of any format may hold, in a bounded amount."""

import datetime
import math
import re
from typing import Any

MOST_VALUES = 20_000  # of one plan; YAML's aliases make a file of a kilobyte into more than memory holds
MOST_NESTED = 20


def plain(value: Any) -> Any:
    """`value` as JSON has it: None, bool, int, float, str, lists, and dicts with string keys.

    Dates become text, tuples lists; what is no text in UTF-8 (half a surrogate pair) becomes U+FFFD.

    Raises ValueError for anything else: infinities, objects, more values or depth than a plan has use for.
    """
    return _plain(value, 0, [MOST_VALUES])


def _plain(value: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"expected at most {MOST_VALUES} values in a plan, found more")
    if depth > MOST_NESTED:
        raise ValueError(f"expected lists and mappings at most {MOST_NESTED} deep, found deeper ones")
    if isinstance(value, dict):
        return {_key(key): _plain(inner, depth + 1, left) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, depth + 1, left) for inner in value]
    return _scalar(value)


def _key(key: Any) -> str:
    scalar = _scalar(key)
    return scalar if isinstance(scalar, str) else str(scalar)


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
