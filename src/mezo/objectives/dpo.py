"""Direct preference optimisation: prefer the chosen answer more than the model did at the start."""

from dataclasses import dataclass

import numpy as np

from mezo.errors import MezoError
from mezo.objectives.preference import Pairs, PreferenceObjective, log_sigmoid
from mezo.scoring import ScoringBatch, candidate_sums


@dataclass(frozen=True, slots=True)
class DPO(PreferenceObjective):
    """-mean log sigmoid(beta ((log p - log p0)(chosen) - (log p - log p0)(rejected))) over examples.

    log p is the sum over an answer's tokens, p0 the model that the run starts from.

    Args:
        beta: how closely the model is held to the start.

    Raises:
        MezoError: an example has no log-probabilities of the start, or not two answers.

    Reference: Rafailov et al. 2023, arXiv:2305.18290, equation 7.
    Example:
        >>> import numpy as np
        >>> from mezo.objectives import OBJECTIVES
        >>> from mezo.scoring import Example, pose
        >>> batch = pose([Example(prompt=(5, 6), candidates=((7,), (8,)), answer=0, reference=(-3.0, -1.0))])
        >>> round(OBJECTIVES["dpo"](batch, np.array([-2.0, -2.0])), 4)
        0.5981
    """

    name: str = "dpo"
    needs_candidates: bool = True
    answers_only: bool = False
    needs_reference: bool = True
    beta: float = 0.1

    def rewards(self, batch: ScoringBatch, logprobs: np.ndarray) -> Pairs:
        if batch.candidate_reference is None:
            raise MezoError(
                f"objective {self.name!r} compares with the model at the start of the run, and the examples have no "
                "log-probabilities of it: use mezo train, or simpo or orpo, which need none"
            )
        return self.pairs(batch, self.beta * (candidate_sums(batch, logprobs) - batch.candidate_reference))

    def __call__(self, batch: ScoringBatch, logprobs: np.ndarray) -> float:
        chosen, rejected = self.rewards(batch, logprobs)
        return -float(np.mean(log_sigmoid(chosen - rejected)))
