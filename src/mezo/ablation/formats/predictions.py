"""Planner output: <discussion>reasoning</discussion> and <predictions>one JSON object a line</predictions>."""

import json
import re
from collections.abc import Iterator
from typing import Any

from mezo.ablation.plans.fields import plan_values, study_values
from mezo.ablation.plans.plan import Plan
from mezo.errors import MezoError
from mezo.util.parsing import once, parse_json

_OPEN, _CLOSE = "<predictions>", "</predictions>"
_FENCE = re.compile(r"\s*(```|~~~)\w*\s*$")


def has_predictions(text: str) -> bool:
    """Whether a text contains a block of predictions with something like a study in it."""
    return _OPEN in text and "{" in text[text.rindex(_OPEN) :]


def parse_predictions(text: str) -> Plan:
    """The plan in a planner's answer, whatever surrounds its blocks; or in plain JSON lines.

    Raises MezoError with the line and the reason where a line is no study.
    """
    start, end, whole = _block(text)
    studies = list(_studies(text, start, end, whole))
    if not studies:
        raise MezoError("expected a JSON object a line, one for each study, found none")
    outside = text[: start if _OPEN in text else 0] + text[end:]
    _, opened, rest = outside.partition("<discussion>")
    return Plan.build(
        reasoning=rest.partition("</discussion>")[0].strip() if opened else None, studies=studies
    )


def _block(text: str) -> tuple[int, int, bool]:
    """Where the predictions begin and end, and whether they are closed.

    The last block counts, as a discussion may mention one. Without a block, the JSON follows the discussion.
    """
    if _OPEN in text:
        start = text.rindex(_OPEN) + len(_OPEN)
        end = text.find(_CLOSE, start)
        return (start, end, True) if end >= 0 else (start, len(text), False)
    _, closed, _ = text.partition("</discussion>")
    start = text.rindex("</discussion>") + len("</discussion>") if closed else 0
    if not text[start:].lstrip().startswith(("{", "[", "```")):
        raise MezoError("expected a <predictions> block or a JSON object a line, found neither")
    return start, len(text), True


def _studies(text: str, start: int, end: int, whole: bool) -> Iterator[dict[str, Any]]:
    """The studies between two places of the text: a list, objects over several lines, or one a line."""
    body = text[start:end]
    try:
        found = parse_json("\n".join(line for line in body.splitlines() if not _FENCE.match(line)))
    except (ValueError, RecursionError):
        yield from _lines(text, start, end, whole)
        return
    yield from plan_values(found)["studies"]


def _lines(text: str, start: int, end: int, whole: bool) -> Iterator[dict[str, Any]]:
    """A study for each object; mostly one a line, but a reply may break one over several."""
    text, decoder = text[:end], json.JSONDecoder(object_pairs_hook=once)
    number, place = text.count("\n", 0, start) + 1, start
    while place < end:
        stop = text.find("\n", place)
        stop = end if stop < 0 else stop
        line = text[place:stop]
        if not line.strip(",[] \t\r") or _FENCE.match(line):
            number, place = number + 1, stop + 1
            continue
        begin = place + len(line) - len(line.lstrip("[, \t\r"))
        try:
            found, after = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError) as error:
            raise MezoError(f"line {number}: no JSON object: {_reason(error, whole)}") from None
        yield study_values(found, f"line {number}")
        number, place = number + text.count("\n", begin, after), after
        rest = text[after : after + 200].partition("\n")[0].strip() if after < end else ""
        if rest and rest[0] not in ",]":
            raise MezoError(f"line {number}: expected one JSON object, found more behind it: {rest:.60}")


def _reason(error: Exception, whole: bool) -> str:
    """Why the text that begins on a line is no object."""
    if isinstance(error, json.JSONDecodeError):
        reason = f"{error.msg[0].lower()}{error.msg[1:]} at line {error.lineno}, column {error.colno}"
    else:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
    return reason if whole else f"{reason}; the text ends without {_CLOSE}, so it may have been cut off"
