"""Negative accuracy: the metric itself as the objective (MeZO, section 3.3)."""

from dataclasses import dataclass

import numpy as np

from mezo.objectives.base import LogprobObjective
from mezo.scoring import ScoringBatch, candidate_scores


@dataclass(frozen=True, slots=True)
class NegativeAccuracy(LogprobObjective):
    """-(share of examples whose best-scoring candidate is a right one), from -1 to 0.

    It moves in steps of 1/N, so a small epsilon often gives two equal losses and no update. Of
    equal scores the first wins, as in `scoring.predictions`. An undefined score makes it undefined
    (nan) rather than wrong, so that a model gone astray is noticed.

    Reference: Malladi et al. 2023, arXiv:2305.17333, section 3.3.
    Example:
        >>> import numpy as np
        >>> from mezo.objectives import NegativeAccuracy
        >>> from mezo.scoring import Example, pose
        >>> batch = pose([Example(prompt=(5, 6), candidates=((7,), (8,)), answer=0)])
        >>> round(NegativeAccuracy()(batch, np.array([-1.0, -2.0])), 4)
        -1.0
    """

    name: str = "accuracy"
    needs_candidates: bool = True
    answers_only: bool = False

    def __call__(self, batch: ScoringBatch, logprobs: np.ndarray) -> float:
        scores = candidate_scores(batch, logprobs)  # (C,)
        if np.isnan(scores).any():
            return float("nan")
        first = np.searchsorted(batch.candidate_example, np.arange(batch.num_examples))  # (N,)
        highest = np.maximum.reduceat(scores, first)  # (N,)
        best = np.flatnonzero(scores == highest[batch.candidate_example])  # at least one an example
        winner = best[np.searchsorted(best, first)]  # (N,) the first best one of each example
        return -float(np.mean(batch.candidate_is_answer[winner]))
