"""Prose made comparable: in one case and spelling, without citations; and as tokens, of which nothing is lost."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from mezo.ablation.plans.fields import repaired

# Both as letters and as LaTeX has them. The word stands apart, so that "ε=1e-3" names epsilon.
_SIGNS = {
    "epsilon": r"[εϵ]|\\(?:var)?epsilon\b",
    "eta": r"η|\\eta\b",
    "beta": r"β|\\beta\b",
    "lambda": r"λ|\\lambda\b",
    "alpha": r"α|\\alpha\b",
    "plus minus": r"±|\\pm\b|\+/-",
    "z": r"\\v?z\b|\\mathbf\{z\}|\\boldsymbol\{z\}",
    "theta": r"θ|\\v?theta\b",
}
_SPELT = (
    (r"(normal|optim|random|quant|parameter|regular|minim|discret|initial)is(?=e|ing|ation)", r"\1iz"),
    (r"\b(zeroth|0th|zero) order\b", "zo"),
    (r"\bhyper ?parameters?\b", "hyperparameter"),
    (r"\blearning ?rates?\b", "learning rate"),
    (r"\bmini ?batch", "batch"),
    (r"\bwarm up\b", "warmup"),
    (r"\bbeta (?=[12]\b)", "beta"),
    (r"\b(on|of|in|for|by|with|the|a|an) (?=\1\b)", ""),
)
_HYPHEN = re.compile(r"(?<=[a-z]{2})-(?=\w)|(?<=\d)-(?=[a-z])|(?<=\b[a-z])-(?=[a-z])|_")

_PLACE = r"(?:section|sec\.|table|figure|fig\.|appendix|eq\.|equation|algorithm)\s*[A-Z]?\.?\d[\d.]*"
_YEAR = r"(?:19|20)\d\d[a-z]?"
_WORK = rf"[A-Z][\w-]+(?:\s+(?:et al\.?|(?:and|&)\s+[A-Z][\w-]+))?,?\s+\(?{_YEAR}\)?|[A-Z][\w-]+ et al\.?"
# Brackets that contain more than a citation stay: "(r=8, Hu et al. 2021)" says r.
_CITATIONS = re.compile(
    rf"\((?:e\.g\.,?|see|following|as in)?\s*(?:(?:{_WORK}|(?i:{_PLACE}))[;,\s]*)+\)"
    rf"|\b[A-Z][\w-]+ et al\.?,?\s*(?:\(?{_YEAR}\)?)?|(?i:\b{_PLACE})|\[\d+\]"
)


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
_PLURAL = re.compile(r"(?:(?<=x)|(?<=ss|ch|sh))es$|(?<=...)(?<![suia])s$")


def spelt(text: str) -> str:
    """`text` in lower case and one spelling: signs as words, no hyphens in words; marks stay."""
    for word, sign in _SIGNS.items():
        text = re.sub(sign, f" {word} ", text)
    text = unicodedata.normalize("NFKC", re.sub(r"(?<=\w)['’]s\b", "", text))
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text).lower()  # Ablation_NoiseKind
    text = " ".join(_HYPHEN.sub(" ", text).split())
    for pattern, said in _SPELT:
        text = re.sub(pattern, said, text)
    return text


@lru_cache(maxsize=4096)  # the titles of all parts are compared with every text
def folded(text: str) -> str:
    """The words of a text: "ε-scale (SPSA)" is "epsilon scale spsa"."""
    return spelt(re.sub(r"\.(?!\d)|[^\w.+]|\+(?!\d)", " ", spelt(repaired(text))))


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    stem: str  # without the ending of a plural
    value: float | None = None  # of a number


def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of `text`. Quotes, full stops and citations are dropped."""
    found = _TOKEN.finditer(spelt(_numbers(_CITATIONS.sub(" ", repaired(text)))))
    return tuple(_token(match) for match in found if match[0] not in _DROPPED)


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


def _token(match: re.Match[str]) -> Token:
    text = match[0]
    if match["number"]:
        return Token(text, text, float(match["number"]) * _SCALES.get(match["scale"], 1))
    return Token(text, text[: -len(ending[0])] if (ending := _PLURAL.search(text)) else text)
