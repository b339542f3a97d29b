"""Cross-entropy over the candidates: classification by the label words."""

from dataclasses import dataclass

import numpy as np

from mezo.objectives.base import LogprobObjective
from mezo.scoring import ScoringBatch, candidate_scores


@dataclass(frozen=True, slots=True)
class CandidateCrossEntropy(LogprobObjective):
    """-mean log softmax(scores)[answer] over examples, in nats an example.

    The score of a candidate is the mean log-probability of its tokens (MeZO, appendix E: the
    classification loss of its large models). With one-token candidates this is the loss of the
    RoBERTa experiments too: the softmax over the label words' logits at the mask. Where several
    candidates are right (ReCoRD), their shares of the softmax are added up: the published code takes
    the first of them as the answer and thereby counts the others as wrong.

    Reference: Malladi et al. 2023, arXiv:2305.17333, appendix E.
    Example:
        >>> import numpy as np
        >>> from mezo.objectives import CandidateCrossEntropy
        >>> from mezo.scoring import Example, pose
        >>> batch = pose([Example(prompt=(5, 6), candidates=((7,), (8,)), answer=0)])
        >>> round(CandidateCrossEntropy()(batch, np.array([-1.0, -2.0])), 4)
        0.3133
    """

    name: str = "candidate-ce"
    needs_candidates: bool = True
    answers_only: bool = False

    def __call__(self, batch: ScoringBatch, logprobs: np.ndarray) -> float:
        scores, example, right = (
            candidate_scores(batch, logprobs),  # (C,)
            batch.candidate_example,
            batch.candidate_is_answer,
        )
        everything = _log_sum_exp(scores, example, batch.num_examples)
        answers = _log_sum_exp(scores[right], example[right], batch.num_examples)
        return float(np.mean(everything - answers))


def _log_sum_exp(scores: np.ndarray, example: np.ndarray, num_examples: int) -> np.ndarray:
    """(C,) scores, and the example of each, ascending -> (N,); every example has a score."""
    first = np.searchsorted(example, np.arange(num_examples))  # (N,)
    highest = np.maximum.reduceat(scores, first)  # (N,) subtracted, so that exp cannot overflow
    return highest + np.log(np.add.reduceat(np.exp(scores - highest[example]), first))
