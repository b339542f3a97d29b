"""A metric of generated text as the objective: F1 (MeZO, section 3.3), ROUGE."""

from collections.abc import Sequence
from dataclasses import dataclass

from mezo.metrics import TextMetric
from mezo.objectives.base import OutputObjective
from mezo.scoring import Example


@dataclass(frozen=True, slots=True)
class NegativeMetric(OutputObjective):
    """-(mean of the metric over the batch), from -1 to 0. Make one with `negative`."""

    of: TextMetric

    def __call__(self, examples: Sequence[Example], outputs: Sequence[str]) -> float:
        return -self.of.of(examples, outputs)

    def each(self, examples: Sequence[Example], outputs: Sequence[str]) -> list[float]:
        return [self.of.score(example, output) for example, output in zip(examples, outputs, strict=True)]


def negative(name: str, metric: TextMetric) -> NegativeMetric:
    return NegativeMetric(name, needs_candidates=False, metric=metric.name, of=metric, needs_answers=True)
