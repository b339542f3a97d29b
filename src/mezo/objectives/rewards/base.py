"""What a reward is: a number for what was written after a prompt, more of which is better."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeVar

from mezo.errors import MezoError

# Of a row, its fields and `references`, the accepted answers; and of what was written.
Function = Callable[[dict[str, Any], str], Any]
# Of many rows and outputs at once: a value for each, which is checked.
Scorer = Callable[[Sequence[Mapping[str, Any]], Sequence[str]], Sequence[Any]]
Compared = TypeVar("Compared", bound=Callable[..., Any])
LONGEST = 20_000  # characters of an output that rewards of this package read


def each(name: str, function: Function) -> Scorer:
    """The function on one row after another, in this process. What it raises is a MezoError that names the row."""

    def score(rows: Sequence[Mapping[str, Any]], outputs: Sequence[str]) -> list[Any]:
        found = []
        for row, output in zip(rows, outputs, strict=True):
            try:
                found.append(function(copied(row), output))
            except Exception as error:
                reason = " ".join(str(error).split())
                kind = (
                    "" if isinstance(error, MezoError) else f"raised {type(error).__name__}{reason and ': '}"
                )
                raise MezoError(f"{place(name, row, output)}: {kind}{reason}") from error
        return found

    return comparing(score) if compares(function) else score


def copied(row: Mapping[str, Any]) -> dict[str, Any]:
    """For a function that may change what it is given."""
    return {**row, "references": list(row["references"])}


def checked(
    name: str, rows: Sequence[Mapping[str, Any]], outputs: Sequence[str], values: Sequence[Any]
) -> list[float]:
    """The values as numbers. Raises MezoError, which names the row, for one that is no finite number."""
    for row, output, value in zip(rows, outputs, values, strict=True):
        if not isinstance(value, Real) or not math.isfinite(value):
            raise MezoError(f"{place(name, row, output)}: expected a finite number, found {shown(value)}")
    return [float(value) for value in values]


def place(name: str, row: Mapping[str, Any], output: str) -> str:
    """How a message begins."""
    return f"reward {name}, example {shown(dict(row))}, output {shown(output)}"


def shown(value: object) -> str:
    """In one line of at most 200 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else text[:197] + "..."


def comparing(function: Compared) -> Compared:
    """The function, known to need an accepted answer of every row: `compares`."""
    function.__dict__["compares"] = True
    return function


def compares(scorer: object) -> bool:
    """Whether a function or scorer compares with accepted answers."""
    return getattr(scorer, "compares", False)


def accepted(row: Mapping[str, Any]) -> list[str]:
    """The row's accepted answers. Raises MezoError if it has none."""
    if not (found := list(row["references"])):
        raise MezoError(
            "compares with accepted answers, and this row has none: choose a task whose rows have answers, or another reward"
        )
    return found
