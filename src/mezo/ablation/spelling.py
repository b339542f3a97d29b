"""Words that are misspelt in a plan, as the table of parts spells them."""

from difflib import get_close_matches
from functools import cache

from mezo.ablation.words import folded

_CLOSE = 0.84  # of the letters of two words, in order: one letter in five may be wrong
_SHORTEST = 5  # letters; shorter words are too easily others


def corrected(text: str) -> str:
    """`text` folded, its unknown words as the nearest known ones are spelt where there are such."""
    return " ".join(_nearest(word) for word in folded(text).split())


def _nearest(word: str) -> str:
    if len(word) < _SHORTEST or not word.isalpha() or word in _known():
        return word
    return next(iter(get_close_matches(word, sorted(_known()), 1, _CLOSE)), word)


@cache
def _known() -> frozenset[str]:
    """The words of the table's titles, settings and values."""
    from mezo.ablation.parts import parts

    texts = [text for part in parts() for text in (part.title, part.takes, *part.fields)]
    texts += ["gaussian rademacher normalization optimizer accuracy schedule perturbation dropout precision"]
    words = (word for text in texts for word in folded(text).split())
    return frozenset(word for word in words if len(word) >= _SHORTEST)
