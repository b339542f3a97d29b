"""MultiRC: each answer to a question is judged true or false."""

from collections import defaultdict
from collections.abc import Sequence

from mezo.metrics.base import ChoiceMetric
from mezo.metrics.macro_f1 import class_f1
from mezo.scoring import Example

_TRUE = 1  # the candidate that says that the answer is correct: the label of the data


def f1a(examples: Sequence[Example], choices: Sequence[int]) -> float:
    """F1 of "correct" over all answers of the data set, whatever question they belong to.

    Reference: Khashabi et al. 2018; SuperGLUE.
    Example:
        >>> f1a([Example((), ((1,), (2,)), answer) for answer in (0, 1)], [1, 1])
        0.6666666666666666
    """
    return class_f1([e.answer for e in examples], choices, _TRUE)


def exact_match(examples: Sequence[Example], choices: Sequence[int]) -> float:
    """The share of questions (`Example.group`) with every answer judged right.

    Reference: Khashabi et al. 2018; SuperGLUE.
    Example:
        >>> exact_match([Example((), ((1,), (2,)), 0, group=g) for g in "aab"], [0, 1, 0])
        0.5
    """
    right: dict[object, list[bool]] = defaultdict(list)
    for number, (example, choice) in enumerate(zip(examples, choices, strict=True)):
        question = ("alone", number) if example.group is None else example.group
        right[question].append(choice == example.answer)
    return sum(map(all, right.values())) / len(right)


MULTIRC_F1A = ChoiceMetric("multirc-f1a", f1a)
MULTIRC_EM = ChoiceMetric("multirc-em", exact_match)
