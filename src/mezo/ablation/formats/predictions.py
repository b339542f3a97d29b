"""Planner output: <discussion>reasoning</discussion> and <predictions>one JSON object a line</predictions>."""

import json
import re
from collections.abc import Iterator
from typing import Any

from mezo.ablation.plans.fields import plan_values
from mezo.ablation.plans.plan import Plan
from mezo.errors import MezoError
from mezo.util.parsing import once

_OPEN, _CLOSE = "<predictions>", "</predictions>"
_BETWEEN = re.compile(r"(?:[,\[\]\s]|^[ \t]*(?:```|~~~)\w*[ \t]*$)*", re.MULTILINE)  # around objects


def has_predictions(text: str) -> bool:
    """Whether a text contains a block of predictions with something like a study in it."""
    return _OPEN in text and "{" in text[text.rindex(_OPEN) :]


def parse_predictions(text: str) -> Plan:
    """The plan in a planner's answer, whatever surrounds its blocks; or in plain JSON lines.

    The last block counts, as a discussion may mention one. Without a block, the JSON follows the discussion.

    Raises MezoError with the line and the reason where a line is no study.
    """
    blocked, _, after = text.rpartition("</discussion>")
    start, end, whole = len(text) - len(after), len(text), True
    if _OPEN in text:
        start = text.rindex(_OPEN) + len(_OPEN)
        end = text.find(_CLOSE, start)
        whole, end = end >= 0, end if end >= 0 else len(text)
        blocked = text[:start] + text[end:]
    elif not after.lstrip().startswith(("{", "[", "```")):
        raise MezoError("expected a <predictions> block or a JSON object a line, found neither")
    studies = list(_studies(text[:end], start, whole))
    if not studies:
        raise MezoError("expected a JSON object a line, one for each study, found none")
    _, opened, rest = blocked.partition("<discussion>")
    reasoning = rest.partition("</discussion>")[0].strip() if opened else None
    return Plan.build(reasoning=reasoning, studies=studies)


def _studies(text: str, start: int, whole: bool) -> Iterator[dict[str, Any]]:
    """The studies from a place on, mostly one a line. whole: whether the block of predictions is closed."""
    decoder, place = json.JSONDecoder(object_pairs_hook=once), start
    while (place := _BETWEEN.match(text, place).end()) < len(text):  # pyright: ignore[reportOptionalMemberAccess]
        where = f"line {text.count(chr(10), 0, place) + 1}"
        try:
            found, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            cut = "" if whole else f"; the text ends without {_CLOSE}, so it may have been cut off"
            raise MezoError(f"{where}: no JSON object: {_reason(error)}{cut}") from None
        if not isinstance(found, dict):
            raise MezoError(f"{where}: expected a JSON object, found {found!r:.40}")
        try:
            yield from plan_values(found)["studies"]
        except MezoError as error:
            raise MezoError(f"{where}: {str(error).removeprefix('study 1: ')}") from None
        rest = text[place : place + 200].partition("\n")[0].strip()
        if rest and rest[0] not in ",]":
            raise MezoError(f"{where}: expected one JSON object, found more behind it: {rest:.60}")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg[0].lower()}{error.msg[1:]} at line {error.lineno}, column {error.colno}"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)
