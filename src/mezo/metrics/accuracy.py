"""Accuracy: the share of examples for which a right candidate was chosen."""

from collections.abc import Sequence

from mezo.metrics.base import ChoiceMetric
from mezo.scoring import Example


def accuracy(examples: Sequence[Example], choices: Sequence[int]) -> float:
    return sum(c in e.right for e, c in zip(examples, choices, strict=True)) / len(examples)


ACCURACY = ChoiceMetric("accuracy", accuracy)
