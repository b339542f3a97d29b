"""The output is an accepted answer."""

from collections.abc import Mapping
from typing import Any

from mezo.objectives.rewards.base import Function, accepted, comparing


def exact(ignore_case: bool = False) -> Function:
    """1 if the output is one of the accepted answers, white space at both ends apart, else 0.

    Example:
        >>> exact()({"references": ["Paris"]}, " Paris "), exact()({"references": ["Paris"]}, "paris")
        (1.0, 0.0)
        >>> exact(ignore_case=True)({"references": ["Paris"]}, "paris")
        1.0
    """

    def judge(row: Mapping[str, Any], output: str) -> float:
        return float(_folded(output, ignore_case) in [_folded(text, ignore_case) for text in accepted(row)])

    return comparing(judge)


def _folded(text: str, ignore_case: bool) -> str:
    return text.strip().casefold() if ignore_case else text.strip()
