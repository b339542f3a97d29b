"""JSON in the answer of a language model."""

import json
from typing import Any


def object_in(answer: str, key: str) -> dict[str, Any]:
    """The first JSON object with `key` in a text. Raises ValueError if no object has it."""
    decoder = json.JSONDecoder()
    place = answer.find("{")
    while place >= 0:
        try:
            found, _ = decoder.raw_decode(answer, place)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and key in found:
            return found
        place = answer.find("{", place + 1)
    raise ValueError(f"no JSON object with {key} in it")
