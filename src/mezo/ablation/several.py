"""Several values in one text: "Rademacher or unit sphere", "linear decay; cosine decay"."""

import re
from collections.abc import Callable
from typing import Any

from mezo.ablation.fields import split
from mezo.ablation.parts import Part
from mezo.ablation.values import Reading, Refused
from mezo.config import MeZOConfig

_Read = Callable[[Part, Any, MeZOConfig], tuple[Reading, ...] | None]
_BRACKETS = re.compile(r"(\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|\"[^\"]*\")")
_STRONG = re.compile(r"\s*;\s*|\s+\|\s+|\s+/\s+|,?\s+or\s+")
_COMMA = re.compile(r",\s+(?:and\s+|or\s+)?")
_GOES_ON = re.compile(
    r"(?i)(?:not|no|without|with|rather|instead|i\.?e\.?|e\.?g\.?|that|which|where|but|while)\b"
)
_JOINT = ("train", "lora_targets", "template", "label_words")  # whose commas and "or" join what is one value


def apart(part: Part, value: Any, config: MeZOConfig, read: _Read) -> tuple[Reading, ...] | None:
    """The readings of a text's values where it has several, each of which the part reads; else None."""
    if not isinstance(value, str) or "template" in part.fields or "label_words" in part.fields:
        return None
    pieces = _pieces(value, _STRONG)
    alike = len(pieces) < 2
    if alike:
        pieces = [] if set(part.fields) & set(_JOINT) else _pieces(value, _COMMA)
    if len(pieces) < 2 or any(_GOES_ON.match(piece) for piece in pieces[1:]):
        return None
    try:
        found = [read(part, piece, config) for piece in pieces]
    except Refused:
        return None
    if not all(found):
        return None
    readings = [reading for each in found for reading in each or ()]
    distinct = [r for n, r in enumerate(readings) if r.settings not in [s.settings for s in readings[:n]]]
    if len(distinct) < 2 or (alike and len({frozenset(r.settings) for r in distinct}) > 1):
        return None
    return tuple(distinct)


def _pieces(text: str, marks: re.Pattern[str]) -> list[str]:
    """`text` taken apart at marks outside brackets and quotes."""
    parts = _BRACKETS.split(text)
    marked = "".join(part if n % 2 else marks.sub("\0", part) for n, part in enumerate(parts))
    return split(marked, "\0")
