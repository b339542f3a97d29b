"""What an objective is: one number, to be made small, from what a model says of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mezo.scoring import Example, ScoringBatch


@dataclass(frozen=True, slots=True)
class Objective(ABC):
    """A loss; it need not be differentiable. Every one is either of the two kinds below."""

    name: str
    needs_candidates: bool  # means nothing where an example has one candidate


@dataclass(frozen=True, slots=True)
class LogprobObjective(Objective):
    """A loss as a function of log-probabilities of the candidates' tokens."""

    answers_only: bool  # reads only the right candidates' log-probabilities: pose(..., answers_only=True)

    @abstractmethod
    def __call__(self, batch: ScoringBatch, logprobs: np.ndarray) -> float:
        """(Q,) log-probabilities in nats -> the loss of the batch, as float64."""


@dataclass(frozen=True, slots=True)
class OutputObjective(Objective):
    """A loss as a function of the texts that a model writes (greedily) after the prompts."""

    metric: str  # what minus the loss is called where it is reported
    needs_answers: bool = field(default=False, kw_only=True)  # compares with each row's accepted answers

    @abstractmethod
    def __call__(self, examples: Sequence[Example], outputs: Sequence[str]) -> float:
        """One output for each example -> the loss of the batch."""

    def each(self, examples: Sequence[Example], outputs: Sequence[str]) -> list[float]:
        """One output for each example -> its reward, more of which is better."""
        return [-self([example], [output]) for example, output in zip(examples, outputs, strict=True)]

    def told(self) -> str | None:
        """What people should know at the end, such as what it cost."""
        return None
