"""The last number that was written, as GSM8K is judged."""

from collections.abc import Mapping
from typing import Any

from mezo.metrics.last_number import same_number
from mezo.objectives.rewards.base import Function, accepted, comparing


def last_number() -> Function:
    """1 if the last number of the output is that of an accepted answer, else 0. Commas between digits count for nothing.

    Raises MezoError if no accepted answer has a number.

    Reference: Cobbe et al. 2021, arXiv:2110.14168.
    Example:
        >>> judge = last_number()
        >>> judge({"references": ["1,250"]}, "500 + 750 = 1250.")
        1.0
    """

    def judge(row: Mapping[str, Any], output: str) -> float:
        return same_number(output, accepted(row))

    return comparing(judge)
