"""One value of a plan on one line of a page: plain where it reads back as it was, else JSON in backticks."""

import json
import re
from typing import Any

from mezo.ablation.plans.fields import is_nothing, metrics, split
from mezo.ablation.formats.page_lines import lines_of, repaired
from mezo.escaping import is_plain_markdown, marked_json
from mezo.parsing import parse_json, parse_yaml

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,300})")
_FEW_WORDS = 4


def decoded(text: str, *, whole: bool = False) -> Any:
    """The value that a line says: a number, a list "a, b" or [a, b], a mapping {a: b}, none, or text.

    whole: a comma does not make a list, nor "None" nothing.
    """
    found, value = _json(text)
    if found:
        return value
    if not whole and is_nothing(text):
        return None
    if text[:1] in ("[", "{") and text[-1:] in ("]", "}"):
        flow = _flow(text)
        if isinstance(flow, list | dict):
            return flow
    parts = [] if whole else split(text, ",;")
    if len(parts) > 1 and all(len(part.split()) <= _FEW_WORDS for part in parts):
        return [_scalar(part) for part in parts]
    return _scalar(text)


def decoded_choices(text: str) -> Any:
    """As `decoded`; entries may be set apart by ";" or " | ", and be as long as they like."""
    if not _json(text)[0] and text[:1] not in ("[", "{"):
        parts = split(text, ";")
        parts = parts if len(parts) > 1 else re.split(r"\s+\|\s+", text)
        if len(parts) > 1:
            return [_scalar(part) for part in parts]
    return decoded(text)


def decoded_list(text: str) -> list[str]:
    """A list of texts by comma."""
    found, value = _json(text)
    return value if found and isinstance(value, list) else metrics(text, "")


def decoded_text(text: str) -> str:
    """Text, also where it looks like a number."""
    found, value = _json(text)
    return value if found and isinstance(value, str) else text


def encoded(value: Any) -> str:
    """The line that `decoded(..., whole=True)` makes the value of."""
    if isinstance(value, str):
        return value if _is_plain(value) and decoded(value, whole=True) == value else quoted(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return quoted(value)
    text = json.dumps(value)
    again = decoded(text, whole=True)
    return text if again == value and type(again) is type(value) else quoted(value)


def encoded_text(text: str) -> str:
    """The line that `decoded_text` makes the text of."""
    return text if _is_plain(text) and decoded_text(text) == text else quoted(text)


def quoted(value: Any) -> str:
    return f"`{marked_json(value)}`"


def _is_plain(text: str) -> bool:
    """Whether it is no markup on a page, of either kind, and comes back from it letter by letter."""
    if not text or not is_plain_markdown(text) or " ".join(text.split()) != text or repaired(text) != text:
        return False
    return [line.text for line in lines_of(text)] == [text]


def _json(text: str) -> tuple[bool, Any]:
    if not (len(text) > 2 and text[0] == text[-1] == "`"):
        return False, None
    try:
        return True, parse_json(text[1:-1])
    except ValueError:
        return False, None


def _flow(text: str) -> Any:
    """A list or mapping as JSON, YAML or Python writes it on one line."""
    try:
        return parse_json(text)
    except ValueError:
        pass
    try:
        found = parse_yaml(text)
    except ValueError:
        return None
    if isinstance(found, list):
        return [_scalar(each) if isinstance(each, str) else each for each in found]
    if isinstance(found, dict) and found and all(value is None for value in found.values()):
        return list(found)  # a set, {2, 4, 8}
    return found


def _scalar(text: str) -> Any:
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and abs(number := float(text)) != float("inf"):
        return number
    return text
