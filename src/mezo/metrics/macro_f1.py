"""Macro F1: the mean over classes of each one's F1."""

from collections.abc import Sequence

from mezo.metrics.base import ChoiceMetric
from mezo.scoring import Example


def macro_f1(examples: Sequence[Example], choices: Sequence[int]) -> float:
    """The mean F1 of the classes that are an answer or were chosen; a class that is never right counts as 0.

    Reference: CB in SuperGLUE, Wang et al. 2019.
    Example:
        >>> macro_f1([Example((), ((1,), (2,)), answer) for answer in (0, 1)], [0, 0])
        0.3333333333333333
    """
    answers = [e.answer for e in examples]
    classes = {*answers, *map(int, choices)}
    return sum(class_f1(answers, choices, c) for c in classes) / len(classes)


def class_f1(answers: Sequence[int], choices: Sequence[int], positive: int) -> float:
    """F1 of one class: 2 TP / (2 TP + FP + FN), and 0 where the class neither is nor was chosen."""
    hits = sum(a == c == positive for a, c in zip(answers, choices, strict=True))
    claims = sum(a == positive for a in answers) + sum(c == positive for c in choices)
    return 2 * hits / claims if claims else 0.0


MACRO_F1 = ChoiceMetric("macro-f1", macro_f1)
