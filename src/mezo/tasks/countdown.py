"""Countdown: problems that are made from a seed, as hard as is asked for."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import blake2b
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.base import GeneratedDataset, HubDataset, PackagedDataset, TextExample
from mezo.tasks.conversation import Conversation
from mezo.tasks.free_text import FreeText
from mezo.tasks.row import Row, shown

_SAMPLES = (
    {"numbers": [3, 5, 20], "target": 75, "solution": "(20 + 5) * 3"},
    {"numbers": [2, 9], "target": 7, "solution": "9 - 2"},
)
_SPLITS = {"train": range(8), "validation": range(8, 9), "test": range(9, 10)}  # of ten parts of all problems
_TRIES = 2000  # draws for a problem, before there are taken to be no more


@dataclass(frozen=True, kw_only=True)
class Countdown(FreeText):
    """`numbers`, `target`, `solution`: an expression of the numbers, each used once, that comes to the target.

    Without data of its own the problems are made: `countdown(numbers=4, largest=100)`. A problem is in one split alone,
    whatever the seed. Its objective is the reward countdown.

    Args:
        numbers, largest: how many a problem has, from 1 to `largest`.
        target: the largest one.
        rows: problems of the training split; the others have a tenth.
        seed: other problems.

    Reference: Gandhi et al. 2024, arXiv:2404.03683.
    Example:
        >>> Countdown().causal(Row(_SAMPLES[1], "samples", 0)).candidates
        (' 9 - 2',)
    """

    name: str = "countdown"
    home: HubDataset | PackagedDataset | GeneratedDataset | None = GeneratedDataset()
    fields: tuple[str, ...] = ("numbers", "target", "solution")
    objective: str | None = "countdown"
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)
    numbers: int = 3
    largest: int = 20
    target: int = 100
    rows: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("numbers", 2, 8),
            ("largest", 2, 10**6),
            ("target", 1, 10**6),
            ("rows", 10, 10**6),
        ):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise MezoError(
                    f"task 'countdown': expected {name} from {least:,} to {most:,}, found {value!r:.40}"
                )

    def generated(self, split: str) -> Sequence[Mapping[str, Any]]:
        wanted = self.rows if split == "train" else max(1, self.rows // 10)
        draw = random.Random(f"countdown {self.numbers} {self.largest} {self.target} {self.seed} {split}")
        found: dict[str, Mapping[str, Any]] = {}
        for _ in range(wanted):
            for key, row in _problems(draw, self.numbers, self.largest, self.target):
                if key not in found and _part(key) in _SPLITS[split]:
                    found[key] = row
                    break
            else:
                raise MezoError(
                    f"task 'countdown': expected {wanted:,} problems of the split {split!r}, found {len(found):,} that differ: "
                    "ask for fewer rows, or for larger or more numbers"
                )
        return list(found.values())

    def conversation(self, row: Row) -> Conversation:
        asked, solution = {"role": "user", "content": _asked(row)}, row.text("solution").strip()
        answer = {"role": "assistant", "content": solution}
        return Conversation((asked, answer), references=(solution,))

    def causal(self, row: Row) -> TextExample:
        solution = row.text("solution").strip()
        return TextExample(f"{_asked(row)}\nExpression:", (" " + solution,), 0, references=(solution,))


def _asked(row: Row) -> str:
    numbers, target = row.value("numbers"), row.value("target")
    if (
        not isinstance(numbers, list | tuple)
        or not numbers
        or not all(type(n) is int for n in (*numbers, target))
    ):
        raise MezoError(
            f"{row.where}: expected whole numbers in fields 'numbers' (a list) and 'target', found {shown(numbers)} and "
            f"{shown(target)}"
        )
    listed = ", ".join(map(str, numbers))
    return (
        f"Write an expression that equals {target}. Use each of the numbers {listed} once, and + - * / and parentheses. "
        "Answer with the expression alone."
    )


def _part(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") % 10


def _problems(
    draw: random.Random, count: int, largest: int, most: int
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Problems by chance, each with what tells it from others."""

    def below(n: int) -> int:
        return int(draw.random() * n)  # what Python promises to be the same in every version

    for _ in range(_TRIES):
        numbers = [1 + below(largest) for _ in range(count)]
        parts = [(Fraction(n), str(n), False) for n in numbers]  # value, text, whether it needs parentheses
        while len(parts) > 1:
            left, right = parts.pop(below(len(parts))), parts.pop(below(len(parts)))
            parts.append(_joined("+-*/"[below(4)], left, right))
            if parts[-1][0].denominator != 1 or not 0 < parts[-1][0] <= 10 * most:
                break
        value, text, _ = parts[-1]
        if len(parts) == 1 and value.denominator == 1 and 0 < value <= most:
            target = int(value)
            yield f"{sorted(numbers)} {target}", {"numbers": numbers, "target": target, "solution": text}


_Part = tuple[Fraction, str, bool]


def _joined(sign: str, left: _Part, right: _Part) -> _Part:
    (a, first, a_sum), (b, second, b_sum) = left, right
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign]
    if sign in "*/":
        first = f"({first})" if a_sum else first
        second = f"({second})" if b_sum or (sign == "/" and not second.isdecimal()) else second
    elif sign == "-" and b_sum:
        second = f"({second})"
    return value, f"{first} {sign} {second}", sign in "+-"
