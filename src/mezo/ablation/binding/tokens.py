"""A text as tokens: words in one spelling, numbers with their units, marks. Nothing of the text is lost."""

import re
import unicodedata
from dataclasses import dataclass

from mezo.ablation.plans.encoding import repaired
from mezo.ablation.binding.numbers import spelt
from mezo.ablation.binding.text import SIGNS, SPELT, without_citations

_TOKEN = re.compile(
    r"(?P<list>(?<![\d.,])\d{1,3},\d{3}(?!\d))"  # 16,128: one number or two?
    r"|(?<![\w/.])1/(?P<part>[1-9]\d*)(?![\w/.])"
    r"|(?P<number>(?:(?<![\w).])[-+])?(?:\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?)(?P<unit>%|(?:k|m|x|th|st|nd|rd)\b)?(?![\w.]*\w)"
    r"|(?P<word>\w[\w.]*\w|\w)|(?P<mark>[^\w\s])"
)
_DROPPED = frozenset("\"'“”‘’`$.")
_HYPHEN = re.compile(r"(?<=[a-z]{2})-(?=\w)|(?<=\d)-(?=[a-z])|(?<=\b[a-z])-(?=[a-z])|_")
_SCALES = {"k": 1e3, "m": 1e6}


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    stem: str  # without the ending of a plural
    value: float | None = None  # of a number
    unit: str = ""  # of a number: "%", "x" (a factor), "th" or none; thousands are counted in


def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of `text`. Quotes and full stops are dropped, citations too."""
    text = spelt(without_citations(repaired(text)))
    for word, sign in SIGNS.items():
        text = re.sub(sign, f" {word} ", text)
    text = unicodedata.normalize("NFKC", re.sub(r"(?<=\w)['’]s\b", "", text))
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text).lower()
    text = " ".join(_HYPHEN.sub(" ", text).split())
    text = re.sub(r"beta (?=[12]\b)", "beta", text)
    for pattern, said in SPELT:
        text = re.sub(pattern, said, text)
    found = (_token(match) for match in _TOKEN.finditer(text))
    return tuple(token for token in found if token.text not in _DROPPED)


def stem(word: str) -> str:
    """`word` without a plural's s, so that a name stands for both."""
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "as"))
    return word[:-1] if plural else word


def _token(match: re.Match[str]) -> Token:
    text = match[0]
    if match["part"]:
        return Token(text, text, 1 / float(match["part"]), "x")
    if match["number"]:
        unit = match["unit"] or ""
        value = float(match["number"]) * _SCALES.get(unit, 1)
        return Token(
            text, text, value, "th" if unit in ("st", "nd", "rd") else "" if unit in _SCALES else unit
        )
    return Token(text, stem(text))
