"""The output contains an accepted answer, or a text."""

from collections.abc import Mapping
from typing import Any

from mezo.errors import MezoError
from mezo.objectives.rewards.base import Function, accepted, comparing


def contains(text: str | None = None, ignore_case: bool = True) -> Function:
    """1 if the output contains `text`, or without one an accepted answer of the row, else 0.

    Raises MezoError for an empty text.

    Example:
        >>> contains()({"references": ["Paris"]}, "It is paris, I think.")
        1.0
        >>> contains(text="sorry")({"references": []}, "No.")
        0.0
    """
    if text is not None and not (isinstance(text, str) and text.strip()):
        raise MezoError(f"reward 'contains': expected text to be some text, found {text!r:.40}")

    def judge(row: Mapping[str, Any], output: str) -> float:
        wanted = [text] if text is not None else accepted(row)
        said = output.casefold() if ignore_case else output
        return float(any((each.casefold() if ignore_case else each).strip() in said for each in wanted))

    return comparing(judge) if text is None else judge
