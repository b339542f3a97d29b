"""The last number that was written, as GSM8K is judged."""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from mezo.errors import MezoError
from mezo.metrics.base import TextMetric, references_of
from mezo.scoring import Example

_NUMBER = re.compile(r"-?\d[\d,]{0,40}(?:\.\d{1,40})?|-?\.\d{1,40}")
_LONGEST = 20_000  # characters of a text that are read, from its end


def number_in(text: str) -> Decimal | None:
    """The last number of a text, commas between its digits left out; None without one."""
    found = _NUMBER.findall(text[-_LONGEST:])
    try:
        return Decimal(found[-1].replace(",", "")) if found else None
    except InvalidOperation:
        return None


def same_number(output: str, answers: Sequence[str]) -> float:
    """1 if the last number of the output is that of an answer, else 0. Raises MezoError if no answer has a number.

    Example:
        >>> same_number("500 + 750 = 1250.", ["1,250"]), same_number("1250 is less than 1300", ["1,250"])
        (1.0, 0.0)
    """
    wanted = [number for text in answers if (number := number_in(text)) is not None]
    if not wanted:
        raise MezoError("expected an accepted answer with a number in it, found none")
    return float(number_in(output) in wanted)


def _score(example: Example, output: str) -> float:
    """1 if the last number of the output is that of an accepted answer, else 0.

    Reference: Cobbe et al. 2021, arXiv:2110.14168.
    Example:
        >>> _score(Example((), ((1,),), 0, references=("42",)), "6 * 7 = 42")
        1.0
    """
    return same_number(output, references_of(example, "last-number"))


LAST_NUMBER = TextMetric("last-number", _score)
