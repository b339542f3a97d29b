"""ROUGE for free text."""

from functools import cache, partial
from typing import Any

from mezo.errors import MezoError
from mezo.metrics.base import TextMetric, references_of
from mezo.scoring import Example

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")  # the library's names; L: longest common subsequence


@cache
def _scorer(kind: str) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError:
        raise MezoError("ROUGE needs the package rouge-score: pip install 'mezo-llm[rouge]'") from None
    return RougeScorer([kind])


def _score(kind: str, example: Example, output: str) -> float:
    """F of the best reference, by the rouge-score library.

    Reference: Lin 2004.
    Example:
        >>> _score("rouge1", Example((), ((1,),), 0, references=("a boat",)), "the boat")
        0.5
    """
    scorer = _scorer(kind)
    return float(scorer.score_multi(references_of(example, kind), output)[kind].fmeasure)


ROUGE = {kind: TextMetric(kind, partial(_score, kind)) for kind in KINDS}
