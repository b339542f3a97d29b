"""What language models are asked, in files of this folder, and JSON in what they answer."""

import json
from importlib.resources import files
from typing import Any


def prompt(name: str) -> str:
    """The text of NAME.txt."""
    return files(__name__).joinpath(f"{name}.txt").read_text(encoding="utf-8")


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
