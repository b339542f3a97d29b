"""The objectives by name. A new one is one file and one line here."""

from mezo.objectives.accuracy import NegativeAccuracy
from mezo.objectives.answer_ce import AnswerCrossEntropy
from mezo.objectives.base import Objective
from mezo.objectives.candidate_ce import CandidateCrossEntropy

OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (AnswerCrossEntropy(), CandidateCrossEntropy(), NegativeAccuracy())
}

__all__ = ["OBJECTIVES", "AnswerCrossEntropy", "CandidateCrossEntropy", "NegativeAccuracy", "Objective"]
