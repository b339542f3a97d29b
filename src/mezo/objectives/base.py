"""What an objective is: one number, to be made small, from the log-probabilities of a batch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from mezo.scoring import ScoringBatch


@dataclass(frozen=True, slots=True)
class Objective(ABC):
    """A loss as a function of log-probabilities; it need not be differentiable."""

    name: str
    answers_only: bool  # reads only the right candidates' log-probabilities: pose(..., answers_only=True)
    needs_candidates: bool  # means nothing where an example has one candidate

    @abstractmethod
    def __call__(self, batch: ScoringBatch, logprobs: np.ndarray) -> float:
        """(Q,) log-probabilities in nats -> the loss of the batch, as float64."""
