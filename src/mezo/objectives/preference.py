"""What preference objectives share: a chosen and a rejected answer to each prompt, and how far apart they are."""

from abc import abstractmethod
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from mezo.errors import MezoError
from mezo.objectives.base import LogprobObjective
from mezo.scoring import ScoringBatch


class Pairs(NamedTuple):
    """(N,) float64 values of the chosen answers, and of the rejected ones."""

    chosen: np.ndarray
    rejected: np.ndarray


@dataclass(frozen=True, slots=True)
class PreferenceObjective(LogprobObjective):
    """A loss of the log-probabilities of two answers to each prompt, the right one of which is the chosen one.

    Its settings are the fields that a subclass adds, positive numbers: `dpo(beta=0.2)`.
    """

    needs_reference: bool  # reads `Example.reference`

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in ("float", float) and not (
                isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6
            ):
                raise MezoError(
                    f"objective {self.name!r}: expected {field.name} to be a number above 0, found {value!r:.40}"
                )

    @abstractmethod
    def rewards(self, batch: ScoringBatch, logprobs: np.ndarray) -> Pairs:
        """How much the model prefers each answer, by this objective: what accuracy and margin are of."""

    def pairs(self, batch: ScoringBatch, values: np.ndarray) -> Pairs:
        """(C,) values of the candidates, paired. Raises MezoError unless each example has a right and a wrong one."""
        right = batch.candidate_is_answer
        n = batch.num_examples
        wanted = np.arange(n)
        chosen, rejected = batch.candidate_example[right], batch.candidate_example[~right]
        if not (np.array_equal(chosen, wanted) and np.array_equal(rejected, wanted)):
            raise MezoError(
                f"objective {self.name!r} compares a chosen with a rejected answer: expected two candidates of each "
                f"example, one of them right, found {len(right)} of {n} examples, {int(right.sum())} right; use "
                "candidate-ce, or rows of prompt, chosen and rejected"
            )
        return Pairs(values[right], values[~right])


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    """log(1 / (1 + exp(-x))), which neither overflows nor loses small values."""
    with np.errstate(invalid="ignore"):  # nan stays nan, for whoever watches the losses
        return -np.logaddexp(0.0, -x)
