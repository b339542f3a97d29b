"""Prose made comparable: one case, one spelling, no marks; and how alike two texts are."""

import re
import unicodedata
from difflib import SequenceMatcher
from functools import lru_cache

from mezo.ablation.plans.encoding import repaired

# Both as letters and as LaTeX has them. The word for a sign stands apart, so that "ε=1e-3" names epsilon.
SIGNS = {
    "epsilon": r"[εϵ]|\\(?:var)?epsilon\b",
    "eta": r"η|\\eta\b",
    "beta": r"β|\\beta\b",
    "lambda": r"λ|\\lambda\b",
    "alpha": r"α|\\alpha\b",
    "plus minus": r"±|\\pm\b|\+/-",
    "z": r"\\v?z\b|\\mathbf\{z\}|\\boldsymbol\{z\}",
    "theta": r"θ|\\v?theta\b",
}
SPELT = (
    (r"(normal|optim|random|quant|parameter|regular|minim|discret|initial)is(?=e|ing|ation)", r"\1iz"),
    (r"\b(zeroth|0th|zero) order\b", "zo"),
    (r"\bhyper ?parameters?\b", "hyperparameter"),
    (r"\blearning ?rates?\b", "learning rate"),
    (r"\bmini ?batch", "batch"),
    (r"\bwarm up\b", "warmup"),
    (r"\b(on|of|in|for|by|with|the|a|an) (?=\1\b)", ""),
)
_STOP = frozenset(
    [
        "a",
        "an",
        "and",
        "by",
        "for",
        "from",
        "in",
        "instead",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "that",
        "the",
        "this",
        "to",
        "used",
        "using",
        "use",
        "with",
        "vs",
    ]
)


@lru_cache(maxsize=4096)  # the titles of all parts are asked for with every text
def folded(text: str) -> str:
    """Lower-case words of letters, digits and points, a space between two: "ε-scale (SPSA)" is "epsilon scale spsa"."""
    text = repaired(text)
    for word, sign in SIGNS.items():
        text = re.sub(sign, f" {word} ", text)
    text = re.sub(r"(?<=\w)['’]s\b", "", text)  # Adam's beta2
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])|_", " ", text)  # Ablation_NoiseKind
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"\.(?!\d)|[^\w.+]|\+(?!\d)", " ", text)
    text = re.sub(r"beta (?=[12]\b)", "beta", " ".join(text.split()))
    for pattern, spelt in SPELT:
        text = re.sub(pattern, spelt, text)
    return text


_PLACE = r"(?:section|sec\.|table|figure|fig\.|appendix|eq\.|equation|algorithm)\s*[A-Z]?\.?\d[\d.]*"
_YEAR = r"(?:19|20)\d\d[a-z]?"
_WORK = rf"[A-Z][\w-]+(?:\s+(?:et al\.?|(?:and|&)\s+[A-Z][\w-]+))?,?\s+\(?{_YEAR}\)?|[A-Z][\w-]+ et al\.?"
# A bracket with more in it than what it cites is kept: "(r=8, Hu et al. 2021)" says r.
_CITATIONS = re.compile(
    rf"\((?:e\.g\.,?|see|following|as in)?\s*(?:(?:{_WORK}|(?i:{_PLACE}))[;,\s]*)+\)"
    rf"|\b[A-Z][\w-]+ et al\.?,?\s*(?:\(?{_YEAR}\)?)?|(?i:\b{_PLACE})|\[\d+\]"
)


def without_citations(text: str) -> str:
    """`text` without what cites: "(e.g., Zhang et al. 2022)", "Section 3", "[12]"."""
    return _CITATIONS.sub(" ", text)


def similarity(one: str, other: str) -> float:
    """From 0 to 1: shared words (Dice), or shared letters in order where that is more."""
    left, right = _stems(one), _stems(other)
    if not left or not right:
        return float(folded(one) == folded(other))
    dice = 2 * len(left & right) / (len(left) + len(right))
    letters = SequenceMatcher(None, folded(one)[:500], folded(other)[:500], autojunk=False).ratio()
    return max(dice, letters if letters > 0.8 else 0.0)  # unrelated texts share half of their letters


def _stems(text: str) -> frozenset[str]:
    """The words that say something, without the endings of plurals and of verbs."""
    words = (word for word in folded(text).split() if word not in _STOP)
    return frozenset(re.sub(r"(?:ations?|ators?|ings?|ed|es|s)$", "", w) if len(w) > 4 else w for w in words)
