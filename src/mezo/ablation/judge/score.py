"""A plan against a reference: studies matched one to one, then precision, recall, F1, nDCG."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mezo.ablation.judge.language_model import LanguageModelJudge
from mezo.ablation.judge.rules import likeness
from mezo.ablation.plans.plan import Plan
from mezo.errors import MezoError

# How alike two studies are, from 0 (not the same ablation) to 1; one row a study of the plan.
Likeness = Callable[[Plan, Plan], Sequence[Sequence[float]]]
# A judge by its name, from the model that answers (None where it asks none), the votes and the seed. A new one is a
# file here and a line.
JUDGES: dict[str, Callable[[Any, int, int], Likeness]] = {
    "rules": lambda model, votes, seed: likeness,
    "lm": LanguageModelJudge,
}


@dataclass(frozen=True, slots=True)
class MatchedPair:
    """A study of the plan and the matching study of the reference; places in their order, from 0."""

    study: int
    gold: int
    likeness: float


@dataclass(frozen=True, slots=True)
class Score:
    """The agreement of a plan with a reference, from 0 to 1.

    precision: matched studies over those of the plan. recall: over those of the reference. f1: their harmonic mean.
    ndcg: of the plan as a ranking. A matched study at place i (from 1) gains 1 / log2(i + 1); the sum is divided by that of
    a plan whose first min(studies, studies of the reference) places all match.
    """

    pairs: tuple[MatchedPair, ...]
    studies: int
    gold: int
    precision: float
    recall: float
    f1: float
    ndcg: float


def score(plan: Plan, gold: Plan, likeness: Likeness) -> Score:
    """Judge `plan` against the reference `gold`.

    likeness: of a judge (`judges.JUDGES`). Each study is matched at most once; of all ways to match, one with the most
    pairs is used, and of those the most alike.

    Raises MezoError if scipy is missing, or as `likeness` does.
    """
    pairs = matched(likeness(plan, gold))
    found, many, wanted = len(pairs), len(plan.studies), len(gold.studies)
    precision, recall = found / many, found / wanted
    f1 = 2 * precision * recall / (precision + recall) if found else 0.0
    ideal = _gain(range(min(many, wanted)))
    return Score(pairs, many, wanted, precision, recall, f1, _gain(pair.study for pair in pairs) / ideal)


def matched(likeness: Sequence[Sequence[float]]) -> tuple[MatchedPair, ...]:
    """The largest one-to-one matching of likenesses above 0; of the largest, the most alike."""
    try:
        import numpy as np
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise MezoError("judging plans needs the package scipy: pip install 'mezo-llm[ablation]'") from None
    values = np.asarray(likeness, dtype=float)
    # one more pair outweighs the sum of all likenesses, which are 1 at most
    weights = np.where(values > 0, values + min(values.shape) + 1, 0)
    rows, columns = linear_sum_assignment(weights, maximize=True)
    return tuple(
        MatchedPair(int(r), int(c), float(values[r, c]))
        for r, c in zip(rows, columns, strict=True)
        if values[r, c] > 0
    )


def _gain(places: Iterable[int]) -> float:
    return sum(1 / math.log2(place + 2) for place in places)
