"""A text as tokens: words in one spelling, numbers, marks. Nothing of the text is lost."""

import re
from dataclasses import dataclass

from mezo.ablation.binding.text import spelt, without_citations
from mezo.ablation.plans.encoding import repaired

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_POWER = re.compile(
    r"(?:(?<![\w.])(\d+(?:\.\d+)?)\s*(?:\\times|\\cdot|[x×*·])\s*)?\b10\s*(?:\^|\*\*)\s*[{(]?\s*([-+]?\d{1,3})\s*[})]?"
)
_SMALL_POWER = re.compile(r"\b(\d{1,2})\s*(?:\^|\*\*)\s*\{?\s*([-+]?\d{1,2})\s*\}?")
_TOKEN = re.compile(
    r"(?P<list>(?<![\d.,])\d{1,3},\d{3}(?!\d))"  # 16,128: one number or two?
    r"|(?P<number>(?:(?<![\w).])[-+])?(?:\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?)(?P<scale>(?:k|m)\b)?(?![\w.]*\w|%)"
    r"|(?P<word>\w[\w.%]*[\w%]|\w)|(?P<mark>[^\w\s])"
)
_DROPPED = frozenset("\"'“”‘’`$.")
_SCALES = {"k": 1e3, "m": 1e6}


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    stem: str  # without the ending of a plural
    value: float | None = None  # of a number


def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of `text`. Quotes, full stops and citations are dropped."""
    text = spelt(_numbers(without_citations(repaired(text))))
    found = (_token(match) for match in _TOKEN.finditer(text))
    return tuple(token for token in found if token.text not in _DROPPED)


def numbers(text: str) -> list[float]:
    """The numbers in a text, each once."""
    return list(dict.fromkeys(token.value for token in tokens(text) if token.value is not None))


def _numbers(text: str) -> str:
    """Powers, thousands and signs as Python writes numbers: 10^{-3}, 5 x 10⁻⁴, 10,000."""
    text = re.sub(r"[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
    text = text.replace("−", "-").replace("–", "-").replace("$", " ")
    text = re.sub(r"(?<=\d),(?=000(?!\d))", "", text)  # 1,000 is a thousand; 16,128 may be two numbers
    text = _POWER.sub(lambda m: f"{m[1] or 1}e{m[2]}", text)
    return _SMALL_POWER.sub(lambda m: repr(float(m[1]) ** int(m[2])) if float(m[1]) else m[1], text)


def _stem(word: str) -> str:
    """`word` without a plural's s, so that a name stands for both."""
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "as"))
    return word[:-1] if plural else word


def _token(match: re.Match[str]) -> Token:
    text = match[0]
    if match["number"]:
        return Token(text, text, float(match["number"]) * _SCALES.get(match["scale"], 1))
    return Token(text, _stem(text))
