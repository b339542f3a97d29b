"""The output matches a regular expression."""

from collections.abc import Mapping
from typing import Any

import regex

from mezo.errors import MezoError
from mezo.objectives.rewards.base import LONGEST, Function


def pattern(pattern: str = "", whole: bool = False, seconds: float = 1.0) -> Function:
    """1 if the pattern is found in the output, else 0. A match that takes too long is an error, not a hang.

    Args:
        pattern: as the package regex takes it, which is Python's own form and more.
        whole: the pattern is to match the whole output.
        seconds: the longest that a match may take.

    Raises MezoError if the pattern is empty or none, and where a match takes longer.

    Example:
        >>> pattern(pattern=r"#### -?\\d+$")({"references": []}, "6 * 7 = 42 #### 42")
        1.0
    """
    if not (isinstance(pattern, str) and pattern):
        raise MezoError("reward 'regex': expected a pattern: regex(pattern=r'...')")
    if not (isinstance(seconds, int | float) and 0 < seconds <= 3600):
        raise MezoError(
            f"reward 'regex': expected seconds to be a number from 0 to 3600, found {seconds!r:.40}"
        )
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise MezoError(f"reward 'regex': {pattern!r:.100} is no pattern: {error}") from None

    def judge(row: Mapping[str, Any], output: str) -> float:
        text = output[:LONGEST]
        try:
            found = (compiled.fullmatch if whole else compiled.search)(text, timeout=seconds)
        except TimeoutError:
            raise MezoError(
                f"the pattern {pattern!r:.100} took longer than {seconds:g} s on {len(text)} characters: make it simpler "
                "(no repetition within a repetition)"
            ) from None
        return float(found is not None)

    return judge
