"""Cross-entropy over the answer tokens: ordinary language-model fine-tuning."""

from dataclasses import dataclass

import numpy as np

from mezo.objectives.base import LogprobObjective
from mezo.scoring import ScoringBatch


@dataclass(frozen=True, slots=True)
class AnswerCrossEntropy(LogprobObjective):
    """-mean log p(token) over all answer tokens of the batch, in nats a token.

    Every token weighs the same, so long answers weigh more than short ones. Wrong candidates,
    where the batch holds any, are left out. Of several right candidates all count, where the
    published code trains on the first.

    Reference: Malladi et al. 2023, arXiv:2305.17333, appendix E.
    Example:
        >>> import numpy as np
        >>> from mezo.objectives import AnswerCrossEntropy
        >>> from mezo.scoring import Example, pose
        >>> batch = pose([Example(prompt=(5, 6), candidates=((7,), (8,)), answer=0)])
        >>> round(AnswerCrossEntropy()(batch, np.array([-1.0, -2.0])), 4)
        1.0
    """

    name: str = "answer-ce"
    needs_candidates: bool = False
    answers_only: bool = True

    def __call__(self, batch: ScoringBatch, logprobs: np.ndarray) -> float:
        of_answer = batch.candidate_is_answer[batch.query_candidate]
        return -float(np.mean(logprobs[of_answer], dtype=np.float64))
