"""JSON and YAML of other people's files: plain values in proportion to the text, or ValueError.

Their libraries raise errors of several kinds for what is none (RecursionError for brackets nested too deep,
OverflowError, errors of their own), and YAML's aliases make a kilobyte into more than memory holds as soon as
somebody walks, compares or prints the values.
"""

import json
import math
from typing import Any

import yaml

MOST_VALUES = 1_000_000  # of one YAML text, aliases written out: no settings, task or plan has a tenth of it


def parse_json(text: str | bytes, *, finite: bool = False) -> Any:
    """The values. Raises ValueError, of one line, if the text is no JSON, is no UTF-8 or is nested too deep.

    finite: NaN and infinities, which Python writes and JSON has not, are refused, and so are numbers past a float.
    """
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite) if finite else json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """The values, by a loader that builds nothing but plain ones.

    Raises ValueError, of one line, if the text is no YAML, is nested too deep, has an alias of itself in it, or
    would come to more than MOST_VALUES values with its aliases written out.
    """
    try:
        found = yaml.load(text, loader)
        _count(found, MOST_VALUES)
    except RecursionError:
        raise ValueError("it is nested too deep, or an alias is inside of what it names") from None
    except (yaml.YAMLError, OverflowError, AttributeError, TypeError, LookupError) as error:
        # the loader's constructors raise what Python does for a date, a number or a key that is none
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected finite numbers, found {text:.20}")
    return value


def _count(value: Any, left: int) -> int:
    """What is left of the number of values. Raises ValueError if it is used up."""
    left -= 1
    if left < 0:
        raise ValueError(f"its aliases come to more than {MOST_VALUES:,} values")
    inner = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
    )
    for item in inner:
        left = _count(item, left)
    return left


def printable(text: str) -> str:
    """`text` with what a terminal would act upon (escape codes, carriage returns) shown as \\x1b and the like;
    its line ends stay. Half a surrogate pair, which no terminal takes, is shown so too."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _shown(c) for c in text)


def _shown(letter: str) -> str:
    return " " if letter == "\t" else ascii(letter)[1:-1]


def one_line(text: object) -> str:
    """As `printable`, with all space as single blanks."""
    return printable(" ".join(str(text).split()))
