"""What a metric is: one number from what a model chose, or wrote, for each example."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mezo.errors import MezoError
from mezo.scoring import Example


@dataclass(frozen=True, slots=True)
class ChoiceMetric:
    """Judges which candidate was chosen, over a whole data set: `of(examples, choices)`."""

    name: str
    of: Callable[[Sequence[Example], Sequence[int]], float]


@dataclass(frozen=True, slots=True)
class TextMetric:
    """Judges the text that was written, an example at a time; the metric is the mean over examples."""

    name: str
    score: Callable[[Example, str], float]

    def of(self, examples: Sequence[Example], outputs: Sequence[str]) -> float:
        scores = [self.score(e, text) for e, text in zip(examples, outputs, strict=True)]
        return sum(scores) / len(scores)


Metric = ChoiceMetric | TextMetric


def references_of(example: Example, metric: str) -> tuple[str, ...]:
    """The accepted answers of an example. Raises MezoError if it has none."""
    if not example.references:
        raise MezoError(
            f"{metric} compares what is written with accepted answers, and the row {example.fields!r:.200} has none; "
            "choose a task that has references, or another metric or objective"
        )
    return example.references
