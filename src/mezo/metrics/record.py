"""ReCoRD: the entity that fills the blank, compared as text."""

from collections.abc import Callable, Sequence
from functools import partial

from mezo.errors import MezoError
from mezo.metrics.base import ChoiceMetric, references_of
from mezo.metrics.squad import best, exact, token_f1
from mezo.scoring import Example


def _mean(score: Callable[[str, str], float], examples: Sequence[Example], choices: Sequence[int]) -> float:
    """The mean over examples of the score of the chosen entity, against the best right answer.

    Reference: Zhang et al. 2018; SuperGLUE.
    Example:
        >>> asked = Example((), ((1,), (2,)), 0, references=("Ann",), fields={"entities": ["Ann Lee", "Bo"]})
        >>> _mean(token_f1, [asked], [0])
        0.6666666666666666
    """
    return sum(_one(score, e, c) for e, c in zip(examples, choices, strict=True)) / len(examples)


def _one(score: Callable[[str, str], float], example: Example, choice: int) -> float:
    """The best over all right answers: several names may stand for the entity that is meant."""
    names = list((example.fields or {}).get("entities", ()))
    if len(names) != len(example.candidates):
        raise MezoError(
            f"the ReCoRD metrics need a row's entities to be its candidates, found {len(names)} entities and "
            f"{len(example.candidates)} candidates; use these metrics with the task record"
        )
    return best(score, names[choice], references_of(example, "record-f1"))


RECORD_F1 = ChoiceMetric("record-f1", partial(_mean, token_f1))
RECORD_EM = ChoiceMetric("record-em", partial(_mean, exact))
