"""Sums of names with weights: `0.5*json + 0.5*length(most=80)`."""

import re

from mezo.errors import MezoError

_TERM = re.compile(r"\s*(-?\d+(?:\.\d*)?|-?\.\d+)\s*\*\s*(\S.*?)\s*", re.DOTALL)


def weighted(name: str) -> list[tuple[float, str]]:
    """(weight, name) of each term; none for a name that does not begin with a weight, and so is no sum.

    Raises MezoError if a term has none.
    """
    if not _TERM.match(name):
        return []
    found = []
    for term in _terms(name):
        match = _TERM.fullmatch(term)
        if match is None:
            raise MezoError(f"{name!r:.200}: expected WEIGHT*NAME + WEIGHT*NAME, found {term.strip()!r:.80}")
        found.append((float(match[1]), match[2]))
    return found


def _terms(name: str) -> list[str]:
    """The parts between the + that are in no parentheses and in no quotes."""
    terms, depth, quote, escaped = [""], 0, "", False
    for letter in name:
        if letter == "+" and not depth and not quote:
            terms.append("")
            continue
        terms[-1] += letter
        if quote:
            quote = "" if letter == quote and not escaped else quote
            escaped = letter == "\\" and not escaped
        elif depth and letter in "'\"":
            quote = letter
        else:
            depth += (letter == "(") - (letter == ")")
    return terms
