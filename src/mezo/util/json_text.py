"""JSON on one line, where numbers that are not finite are null."""

import json
import math
from typing import Any


def to_json(values: dict[str, Any] | list[Any]) -> str:
    """One line of JSON. Numbers that are not finite become null: JSON has no NaN."""
    return json.dumps(_finite(values), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(item) for item in value]
    return value
