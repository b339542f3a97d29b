"""Countdown: an expression of given numbers that comes to a target."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from mezo.errors import MezoError
from mezo.objectives.rewards.base import LONGEST, Function

_LONGEST = 200  # characters of an expression
_MOST_NUMBERS, _LARGEST = 20, 10**9
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "[": "(", "]": ")"})
_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def countdown(partial: float = 0.0, use_all: bool = True) -> Function:
    """1 if the answer is an expression of the row's `numbers` that comes to its `target`, else `partial` or 0.

    The answer is what the last <answer> ... </answer> holds, or else the last line; what follows an = is not read. The
    expression may have the numbers, + - * / and parentheses. It is parsed, never run, and counted in exact fractions.

    Args:
        partial: for an expression that is one of the numbers and comes to something else.
        use_all: each number is to be used, once; False: some of them will do.

    Raises MezoError if the row has no `numbers` and `target`, whole numbers.

    Reference: Gandhi et al. 2024, arXiv:2404.03683; Qiu et al. 2025, arXiv:2509.24372.
    Example:
        >>> judge = countdown(partial=0.1)
        >>> row = {"numbers": [3, 5, 20], "target": 75}
        >>> [judge(row, said) for said in ("(20 - 5) * 5", "20*3 + 5*3 = 75", "<answer>20 * 5 / 3</answer>", "(20 + 5) * 3")]
        [0.0, 0.0, 0.1, 1.0]
    """

    def judge(row: Mapping[str, Any], output: str) -> float:
        numbers, target = _asked(row)
        found = _value(_expression(output), numbers, use_all=use_all)
        return 0.0 if found is None else 1.0 if found == target else float(partial)

    return judge


def _asked(row: Mapping[str, Any]) -> tuple[list[int], int]:
    numbers, target = row.get("numbers"), row.get("target")
    whole = isinstance(numbers, list | tuple) and all(type(n) is int and 0 < n <= _LARGEST for n in numbers)
    if (
        not isinstance(numbers, list | tuple)
        or not whole
        or not 0 < len(numbers) <= _MOST_NUMBERS
        or type(target) is not int
    ):
        raise MezoError(
            f"expected fields numbers (1 to {_MOST_NUMBERS} whole numbers above 0) and target (a whole number), found "
            f"{numbers!r:.80} and {target!r:.40}"
        )
    return list(numbers), target


def _expression(output: str) -> str:
    text = output[-LONGEST:]
    tagged = _TAGGED.findall(text)
    lines = (tagged[-1] if tagged else text).strip().splitlines()
    return lines[-1].partition("=")[0].strip().translate(_SIGNS) if lines else ""


def _value(expression: str, numbers: list[int], *, use_all: bool) -> Fraction | None:
    """What an expression of the numbers comes to; None if it is not such an expression."""
    if not expression or len(expression) > _LONGEST:
        return None
    try:
        tree = ast.parse(expression, mode="eval").body
        left = Counter(numbers)
        value = _counted(tree, left)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None
    return None if use_all and any(left.values()) else value


def _counted(node: ast.expr, left: Counter[int]) -> Fraction:
    """The value of a node, whose numbers are taken from those that are left. Raises ValueError for anything else."""
    if isinstance(node, ast.Constant) and type(node.value) is int and left[node.value] > 0:
        left[node.value] -= 1
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_counted(node.left, left), _counted(node.right, left))
    raise ValueError("not an expression of the numbers")
