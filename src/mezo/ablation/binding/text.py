"""Prose made comparable: one case, one spelling, no citations; and how alike two texts are."""

import re
import unicodedata
from difflib import SequenceMatcher
from functools import lru_cache

from mezo.ablation.plans.encoding import repaired

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
_STOP = re.compile("a|an|and|by|for|from|in|instead|is|its?|of|on|or|that|the|this|to|used|using|use|with|vs")
_HYPHEN = re.compile(r"(?<=[a-z]{2})-(?=\w)|(?<=\d)-(?=[a-z])|(?<=\b[a-z])-(?=[a-z])|_")

_PLACE = r"(?:section|sec\.|table|figure|fig\.|appendix|eq\.|equation|algorithm)\s*[A-Z]?\.?\d[\d.]*"
_YEAR = r"(?:19|20)\d\d[a-z]?"
_WORK = rf"[A-Z][\w-]+(?:\s+(?:et al\.?|(?:and|&)\s+[A-Z][\w-]+))?,?\s+\(?{_YEAR}\)?|[A-Z][\w-]+ et al\.?"
# Brackets that contain more than a citation stay: "(r=8, Hu et al. 2021)" says r.
_CITATIONS = re.compile(
    rf"\((?:e\.g\.,?|see|following|as in)?\s*(?:(?:{_WORK}|(?i:{_PLACE}))[;,\s]*)+\)"
    rf"|\b[A-Z][\w-]+ et al\.?,?\s*(?:\(?{_YEAR}\)?)?|(?i:\b{_PLACE})|\[\d+\]"
)


def without_citations(text: str) -> str:
    """`text` without "(e.g., Zhang et al. 2022)", "Section 3", "[12]" and the like."""
    return _CITATIONS.sub(" ", text)


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


def similarity(one: str, other: str) -> float:
    """From 0 to 1: shared words (Dice), or shared letters in order if that is more."""
    left, right = _stems(one), _stems(other)
    if not left or not right:
        return float(folded(one) == folded(other))
    dice = 2 * len(left & right) / (len(left) + len(right))
    letters = SequenceMatcher(None, folded(one)[:500], folded(other)[:500], autojunk=False).ratio()
    return max(dice, letters if letters > 0.8 else 0.0)  # unrelated texts share half of their letters


def _stems(text: str) -> frozenset[str]:
    """The content words, without the endings of plurals and verbs."""
    words = (word for word in folded(text).split() if not _STOP.fullmatch(word))
    return frozenset(re.sub(r"(?:ations?|ators?|ings?|ed|es|s)$", "", w) if len(w) > 4 else w for w in words)
