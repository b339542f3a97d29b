"""Simple preference optimisation: prefer the chosen answer by a margin, token for token."""

from dataclasses import dataclass

import numpy as np

from mezo.objectives.preference import Pairs, PreferenceObjective, log_sigmoid
from mezo.scoring import ScoringBatch, candidate_scores


@dataclass(frozen=True, slots=True)
class SimPO(PreferenceObjective):
    """-mean log sigmoid(beta (s(chosen) - s(rejected)) - gamma), s the mean log-probability of an answer's tokens.

    Args:
        beta: scale of the scores.
        gamma: how far the chosen answer's is to be ahead.

    Raises:
        MezoError: an example has not two answers.

    Reference: Meng et al. 2024, arXiv:2405.14734, equation 6.
    Example:
        >>> import numpy as np
        >>> from mezo.objectives import OBJECTIVES
        >>> from mezo.scoring import Example, pose
        >>> batch = pose([Example(prompt=(5, 6), candidates=((7,), (8,)), answer=0)])
        >>> round(OBJECTIVES["simpo"](batch, np.array([-1.0, -1.5])), 4)
        0.6931
    """

    name: str = "simpo"
    needs_candidates: bool = True
    answers_only: bool = False
    needs_reference: bool = False
    beta: float = 2.0
    gamma: float = 1.0

    def rewards(self, batch: ScoringBatch, logprobs: np.ndarray) -> Pairs:
        return self.pairs(batch, self.beta * candidate_scores(batch, logprobs))

    def __call__(self, batch: ScoringBatch, logprobs: np.ndarray) -> float:
        chosen, rejected = self.rewards(batch, logprobs)
        return -float(np.mean(log_sigmoid(chosen - rejected - self.gamma)))
