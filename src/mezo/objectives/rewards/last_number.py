"""The last number that was written, as GSM8K is judged."""

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from mezo.errors import MezoError
from mezo.objectives.rewards.base import LONGEST, Function, accepted

_NUMBER = re.compile(r"-?\d[\d,]{0,40}(?:\.\d{1,40})?|-?\.\d{1,40}")


def last_number() -> Function:
    """1 if the last number of the output is that of an accepted answer, else 0. Commas between digits count for nothing.

    Raises MezoError if no accepted answer has a number.

    Reference: Cobbe et al. 2021, arXiv:2110.14168.
    Example:
        >>> judge = last_number()
        >>> row = {"references": ["1,250"]}
        >>> judge(row, "500 + 750 = 1250."), judge(row, "1250 is less than 1300")
        (1.0, 0.0)
    """

    def judge(row: Mapping[str, Any], output: str) -> float:
        wanted = [number for text in accepted(row) if (number := number_in(text)) is not None]
        if not wanted:
            raise MezoError("expected an accepted answer with a number in it, found none")
        found = number_in(output[-LONGEST:])
        return float(found is not None and found in wanted)

    return judge


def number_in(text: str) -> Decimal | None:
    """The last number of a text; None without one."""
    found = _NUMBER.findall(text)
    try:
        return Decimal(found[-1].replace(",", "")) if found else None
    except InvalidOperation:
        return None
