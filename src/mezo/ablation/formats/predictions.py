"""Planner output: <discussion>reasoning</discussion> and <predictions>a JSON object a line</predictions>.

A title and what else is known of a plan stand in a <plan> block of their own, which planners do not write.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from mezo.ablation.plans.fields import plan_values, study_values
from mezo.ablation.plans.plan import Plan
from mezo.errors import MezoError
from mezo.escaping import marked_json
from mezo.parsing import once, parse_json

_OPEN, _CLOSE = "<predictions>", "</predictions>"
_FENCE = re.compile(r"\s*(```|~~~)\w*\s*$")


def has_predictions(text: str) -> bool:
    """Whether a text has a block of predictions with something like a study in it."""
    return _OPEN in text and "{" in text[text.rindex(_OPEN) :]


def parse_predictions(text: str) -> Plan:
    """The plan in a planner's answer, whatever stands around its blocks; or in plain JSON lines.

    Raises MezoError with the line and the reason where a line is no study.
    """
    head = json_or_text(between(text, "plan"))
    head = head if isinstance(head, dict) else {}
    start, end, whole = _block(text)
    studies = list(_studies(text, start, end, whole))
    if not studies:
        raise MezoError("expected a JSON object a line, one for each study, found none")
    outside = text[: start if _OPEN in text else 0] + text[end:]
    reasoning = between(outside, "discussion")
    if reasoning is not None:
        found = json_or_text(reasoning)
        head = {**head, "reasoning": found if isinstance(found, str) else reasoning}
    return Plan.build(**{**head, "studies": studies})


def to_predictions(plan: Plan, studies: Sequence[dict[str, Any]]) -> str:
    """The text that `parse_predictions` makes an equal plan of. studies: the plan's, as plain values."""
    head = {**({"title": plan.title} if plan.title else {}), **plan.extra}
    if plan.reasoning == "":
        head["reasoning"] = ""
    blocks = [f"<plan>\n{marked_json(head)}\n</plan>\n"] if head else []
    lines = "".join(f"{marked_json(study)}\n" for study in studies)
    predictions = f"{_OPEN}\n{lines}{_CLOSE}\n"
    if not plan.reasoning:
        return "\n".join((*blocks, predictions))
    for shown in (plan.reasoning, marked_json(plan.reasoning)):  # as it is, unless it would be read otherwise
        text = "\n".join((*blocks, f"<discussion>\n{shown}\n</discussion>\n", predictions))
        if same(parse_predictions, text, plan):
            break
    return text


def same(parse: Any, text: str, plan: Plan) -> bool:
    """Whether `parse` makes the plan of the text; one that does not read at all is not the same."""
    try:
        return parse(text) == plan
    except MezoError:
        return False


def json_or_text(text: str | None) -> Any:
    """What a text of JSON says, or the text itself."""
    if text is None or text[:1] not in ('"', "{"):
        return text
    try:
        return parse_json(text)
    except ValueError:
        return text


def between(text: str, tag: str) -> str | None:
    """The text of the first such block, up to its end or the text's; None if there is no block."""
    _, opened, rest = text.partition(f"<{tag}>")
    return rest.partition(f"</{tag}>")[0].strip() if opened else None


def _block(text: str) -> tuple[int, int, bool]:
    """Where the predictions are, and whether their end is there.

    The last block is taken, as a discussion may speak of one. Without any, all is JSON behind what other
    blocks there are.
    """
    if _OPEN in text:
        start = text.rindex(_OPEN) + len(_OPEN)
        end = text.find(_CLOSE, start)
        return (start, end, True) if end >= 0 else (start, len(text), False)
    ends = [text.rfind(tag) + len(tag) for tag in ("</plan>", "</discussion>") if tag in text]
    start = max(ends, default=0)
    if not text[start:].lstrip().startswith(("{", "[", "```")):
        raise MezoError("expected a <predictions> block or a JSON object a line, found neither")
    return start, len(text), True


def _studies(text: str, start: int, end: int, whole: bool) -> Iterator[dict[str, Any]]:
    """The studies between two places of the text: a list, objects over several lines, or one a line."""
    body = text[start:end]
    try:
        found = parse_json("\n".join(line for line in body.splitlines() if not _FENCE.match(line)))
        yield from plan_values(found, "")["studies"]
        return
    except MezoError:
        raise
    except (ValueError, RecursionError):
        pass
    yield from _lines(text, start, end, whole)


def _lines(text: str, start: int, end: int, whole: bool) -> Iterator[dict[str, Any]]:
    """A study for each object: mostly one a line, but a reply may break one over several."""
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
    """Why what begins on a line is no object."""
    if isinstance(error, json.JSONDecodeError):
        reason = f"{error.msg[0].lower()}{error.msg[1:]} at line {error.lineno}, column {error.colno}"
    else:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
    return reason if whole else f"{reason}; the text ends without {_CLOSE}, so it may have been cut off"
