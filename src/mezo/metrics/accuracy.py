"""Accuracy: the share of examples whose chosen candidate is right."""

from collections.abc import Sequence

from mezo.metrics.base import ChoiceMetric
from mezo.scoring import Example


def accuracy(examples: Sequence[Example], choices: Sequence[int]) -> float:
    """The share of examples with a right choice.

    Example:
        >>> accuracy([Example((), ((1,), (2,)), answer=0)] * 2, [0, 1])
        0.5
    """
    return sum(c in e.right for e, c in zip(examples, choices, strict=True)) / len(examples)


ACCURACY = ChoiceMetric("accuracy", accuracy)
