"""Odds ratio preference optimisation: learn the chosen answer, and raise its odds against the rejected one."""

from dataclasses import dataclass

import numpy as np

from mezo.objectives.preference import Pairs, PreferenceObjective, log_sigmoid
from mezo.scoring import ScoringBatch, candidate_scores


@dataclass(frozen=True, slots=True)
class ORPO(PreferenceObjective):
    """mean over examples of -s(chosen) - weight log sigmoid(log odds(chosen) - log odds(rejected)).

    s is the mean log-probability of an answer's tokens, and its odds are exp(s) / (1 - exp(s)).

    Args:
        weight: of the odds ratio (lambda in the paper, beta in TRL).

    Raises:
        MezoError: an example has not two answers.

    Reference: Hong et al. 2024, arXiv:2403.07691, equations 4 to 7.
    Example:
        >>> import numpy as np
        >>> from mezo.objectives import OBJECTIVES
        >>> from mezo.scoring import Example, pose
        >>> batch = pose([Example(prompt=(5, 6), candidates=((7,), (8,)), answer=0)])
        >>> round(OBJECTIVES["orpo"](batch, np.log([0.5, 0.5])), 4)
        0.7625
    """

    name: str = "orpo"
    needs_candidates: bool = True
    answers_only: bool = False
    needs_reference: bool = False
    weight: float = 0.1

    def rewards(self, batch: ScoringBatch, logprobs: np.ndarray) -> Pairs:
        return self.pairs(batch, self.weight * candidate_scores(batch, logprobs))

    def __call__(self, batch: ScoringBatch, logprobs: np.ndarray) -> float:
        # A probability of 1 has odds without bound: float64's largest below it stands for it.
        scores = np.minimum(candidate_scores(batch, logprobs), -np.finfo(np.float64).eps)
        chosen, rejected = self.pairs(batch, scores - np.log(-np.expm1(scores)))
        likely = self.pairs(batch, scores).chosen
        return float(np.mean(-likely - self.weight * log_sigmoid(chosen - rejected)))
