"""The value that one line of a page states: a number, a list, a mapping, nothing, or text."""

import re
from typing import Any

from mezo.ablation.plans.fields import is_nothing, split
from mezo.util.parsing import parse_json, parse_yaml

_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,300})(?P<rest>(?:\.\d+)?(?:[eE][+-]?\d+)?)")
_FEW_WORDS = 4


def value_of(text: str) -> Any:
    """The value of a line: a number, a list "a, b" or [a, b], a mapping {a: b}, None, or text.

    JSON in backticks is what it says. Entries separated by ";" or " | " may be of any length.
    """
    if len(text) > 2 and text[0] == text[-1] == "`":
        return literal(text)
    if is_nothing(text):
        return None
    if text[:1] in ("[", "{") and text[-1:] in ("]", "}"):
        flow = _flow(text)
        if isinstance(flow, list | dict):
            return flow
    for parts in (split(text, ";"), re.split(r"\s+\|\s+", text)):
        if len(parts) > 1:
            return [literal(part) for part in parts]
    parts = split(text, ",;")
    if len(parts) > 1 and all(len(part.split()) <= _FEW_WORDS for part in parts):
        return [literal(part) for part in parts]
    return literal(text)


def literal(text: str) -> Any:
    """A single value: a number, JSON in backticks, or the text itself."""
    if len(text) > 2 and text[0] == text[-1] == "`":
        try:
            return parse_json(text[1:-1])
        except ValueError:
            return text
    found = _NUMBER.fullmatch(text)
    if found is None:
        return text
    number = float(text) if found["rest"] else int(text)
    return text if number in (float("inf"), float("-inf")) else number


def _flow(text: str) -> Any:
    """A list or a mapping on one line, as JSON, YAML or Python writes it."""
    for parse in (parse_json, parse_yaml):
        try:
            found = parse(text)
            break
        except ValueError:
            continue
    else:
        return None
    if isinstance(found, list):
        return [literal(each) if isinstance(each, str) and parse is parse_yaml else each for each in found]
    if isinstance(found, dict) and found and all(value is None for value in found.values()):
        return list(found)  # a set, {2, 4, 8}
    return found
