"""An objective: how far the best wrong candidate is ahead of the right one. --objective objective.py:Margin"""

from dataclasses import dataclass

import numpy as np

from mezo.objectives import LogprobObjective
from mezo.scoring import ScoringBatch, candidate_scores


@dataclass(frozen=True)
class Margin(LogprobObjective):
    """mean over examples of max(0, best wrong log-probability - right one + width)."""

    name: str = "margin"
    needs_candidates: bool = True
    answers_only: bool = False
    width: float = 1.0

    def __call__(self, batch: ScoringBatch, logprobs: np.ndarray) -> float:
        scores = candidate_scores(batch, logprobs)
        best = np.full((2, batch.num_examples), -np.inf)  # wrong, right
        np.maximum.at(best, (batch.candidate_is_answer.astype(int), batch.candidate_example), scores)
        return float(np.maximum(0, best[0] - best[1] + self.width).mean())
