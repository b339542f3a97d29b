"""SQuAD's F1 and exact match."""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable

from mezo.metrics.base import TextMetric, references_of
from mezo.scoring import Example

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(text: str) -> str:
    """Lower case, without punctuation, then without articles, with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(output: str, reference: str) -> float:
    """F1 of the bags of words; 0 where they share none, two empty ones included."""
    ours, theirs = normalized(output).split(), normalized(reference).split()
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def exact(output: str, reference: str) -> float:
    return float(normalized(output) == normalized(reference))


def best(score: Callable[[str, str], float], output: str, references: Iterable[str]) -> float:
    return max(score(output, reference) for reference in references)


def _f1(example: Example, output: str) -> float:
    """F1 of the bags of words, against the best reference.

    Reference: Rajpurkar et al. 2016, evaluation script version 1.1.
    Example:
        >>> _f1(Example((), ((1,),), 0, references=("the red boat",)), "A boat.")
        0.6666666666666666
    """
    return best(token_f1, output, references_of(example, "squad-f1"))


def _em(example: Example, output: str) -> float:
    """1 if the normalised output is a reference, else 0.

    Reference: Rajpurkar et al. 2016, evaluation script version 1.1.
    Example:
        >>> _em(Example((), ((1,),), 0, references=("the boat",)), "A boat.")
        1.0
    """
    return best(exact, output, references_of(example, "squad-em"))


SQUAD_F1 = TextMetric("squad-f1", _f1)
SQUAD_EM = TextMetric("squad-em", _em)
