"""Cross-entropy over the candidates: classification by the label words."""

from dataclasses import dataclass

import numpy as np

from mezo.objectives.base import Objective
from mezo.scoring import ScoringBatch, candidate_scores


@dataclass(frozen=True, slots=True)
class CandidateCrossEntropy(Objective):
    """-mean log softmax(scores)[answer] over examples, in nats an example.

    The score of a candidate is the mean log-probability of its tokens (MeZO, appendix E: the
    classification loss of its large models). With one-token candidates this is the loss of the
    RoBERTa experiments too: the softmax over the label words' logits at the mask.
    """

    name: str = "candidate-ce"
    answers_only: bool = False
    needs_candidates: bool = True

    def __call__(self, batch: ScoringBatch, logprobs: np.ndarray) -> float:
        scores = candidate_scores(batch, logprobs)  # (C,)
        first = np.searchsorted(batch.candidate_example, np.arange(batch.num_examples))  # (N,)
        highest = np.maximum.reduceat(scores, first)  # (N,) subtracted, so that exp cannot overflow
        total = np.add.reduceat(np.exp(scores - highest[batch.candidate_example]), first)  # (N,)
        return float(np.mean(highest + np.log(total) - scores[batch.candidate_is_answer]))
