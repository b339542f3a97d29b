"""Objectives: values by hand, agreement with a plain loop, and which queries they read."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.objectives import OBJECTIVES, PreferenceObjective
from mezo.scoring import Example, ScoringBatch, candidate_scores, pose, predictions

# of examples with any number of candidates; the others are in test_preferences.py
NAMES = [name for name, o in OBJECTIVES.items() if not isinstance(o, PreferenceObjective)]
EXAMPLES = [
    Example((9,), ((1, 2), (3,)), 0),
    Example((9,), ((1,), (2,), (3,)), 2),
    Example((9,), ((1,), (2,)), 1),
]
LOGPROBS = np.log([0.5, 0.125, 0.25, 0.2, 0.3, 0.5, 0.6, 0.4])
# scores of the candidates, exponentiated: sqrt(0.5 * 0.125) = 0.25, 0.25 | 0.2, 0.3, 0.5 | 0.6, 0.4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("answer-ce", -(math.log(0.5) + math.log(0.125) + math.log(0.5) + math.log(0.4)) / 4),
        ("candidate-ce", -(math.log(0.5) + math.log(0.5) + math.log(0.4)) / 3),
        ("accuracy", -2 / 3),  # the tie of the first example goes to its first candidate, the right one
    ],
)
def test_values_by_hand(name: str, expected: float) -> None:
    loss = OBJECTIVES[name](pose(EXAMPLES), LOGPROBS)
    assert type(loss) is float
    # a dozen float64 roundings of numbers near 1
    assert loss == pytest.approx(expected, rel=16 * np.finfo(np.float64).eps)


def by_loop(name: str, batch: ScoringBatch, logprobs: np.ndarray) -> float:
    """The definition of each objective, an example at a time."""
    if name == "answer-ce":
        right = [
            lp for c, lp in zip(batch.query_candidate, logprobs, strict=True) if batch.candidate_is_answer[c]
        ]
        return -math.fsum(right) / len(right)
    scores, losses = candidate_scores(batch, logprobs), []
    for number, predicted in enumerate(predictions(batch, logprobs)):
        mine = np.flatnonzero(batch.candidate_example == number)
        answers = mine[batch.candidate_is_answer[mine]]
        if name == "accuracy":
            losses.append(-float(mine[predicted] in answers))
        else:
            best = max(scores[i] for i in answers)
            every, right = (math.fsum(math.exp(scores[i] - best) for i in these) for these in (mine, answers))
            losses.append(math.log(every / right))
    return math.fsum(losses) / len(losses)


@st.composite
def scored(draw: st.DrawFn) -> tuple[ScoringBatch, np.ndarray]:
    candidate = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple)
    examples = []
    for _ in range(draw(st.integers(1, 5))):
        candidates = tuple(draw(st.lists(candidate, min_size=1, max_size=4)))
        index = st.integers(0, len(candidates) - 1)
        right = tuple(draw(st.lists(index, max_size=3, unique=True)))
        answer = right[0] if right else draw(index)
        examples.append(Example((9,), candidates, answer, answers=right))
    batch = pose(examples)
    n = len(batch.query_row)
    # halves: sums are exact, so that ties are ties; down to -50, where exp alone would lose them
    halves = draw(st.lists(st.integers(-100, 0), min_size=n, max_size=n))
    return batch, np.array(halves) / 2


@pytest.mark.parametrize("name", NAMES)
@given(case=scored())
def test_vectorised_is_the_loop(name: str, case: tuple[ScoringBatch, np.ndarray]) -> None:
    batch, logprobs = case
    # numbers up to 50, a few dozen roundings of 2**-53 each: below 1e-12
    assert OBJECTIVES[name](batch, logprobs) == pytest.approx(by_loop(name, batch, logprobs), abs=1e-12)


@pytest.mark.parametrize("name", [name for name, o in OBJECTIVES.items() if o.answers_only])
def test_answers_only_loses_nothing(name: str) -> None:
    posed = pose(EXAMPLES)
    kept = posed.candidate_is_answer[posed.query_candidate]
    alone = pose(EXAMPLES, answers_only=True)
    assert OBJECTIVES[name](alone, LOGPROBS[kept]) == OBJECTIVES[name](posed, LOGPROBS)


def test_several_right_candidates_by_hand() -> None:
    """Shares 0.5, 0.2 and 0.3 of the softmax, of which the first and the last are right."""
    batch = pose([Example((9,), ((1,), (2,), (3,)), 0, answers=(0, 2))])
    logprobs = np.log([0.5, 0.2, 0.3])
    values = {name: OBJECTIVES[name](batch, logprobs) for name in NAMES}
    expected = {
        "answer-ce": -(math.log(0.5) + math.log(0.3)) / 2,
        "candidate-ce": -math.log(0.5 + 0.3),
        "accuracy": -1.0,
    }
    assert values == pytest.approx(expected, rel=16 * np.finfo(np.float64).eps)
    assert OBJECTIVES["accuracy"](batch, np.log([0.2, 0.3, 0.5])) == -1.0
    assert OBJECTIVES["accuracy"](batch, np.log([0.2, 0.5, 0.3])) == 0.0


def test_candidate_ce_does_not_overflow_or_underflow() -> None:
    batch = pose([Example((9,), ((1,), (2,)), 1)])
    assert OBJECTIVES["candidate-ce"](batch, np.array([-5000.0, -4000.0])) == 0.0
    assert OBJECTIVES["candidate-ce"](batch, np.array([-4000.0, -5000.0])) == 1000.0


@pytest.mark.parametrize("name", NAMES)
def test_an_undefined_score_is_not_hidden(name: str) -> None:
    assert math.isnan(OBJECTIVES[name](pose(EXAMPLES), np.full(8, np.nan)))


@pytest.mark.parametrize("name", ["answer-ce", "candidate-ce"])
def test_sums_are_float64_whatever_is_given(name: str) -> None:
    tiny = 2.0**-25  # lost beside 1 in float32, kept in float64
    if name == "answer-ce":
        batch, expected = pose([Example((9,), ((1,),), 0)] * 2), (1 + tiny) / 2
        logprobs = [-1.0, -tiny]
    else:  # scores of -(1 + tiny) / 2 and 0
        batch, expected = pose([Example((9,), ((1, 2), (3,)), 0)]), math.log1p(math.exp((1 + tiny) / 2))
        logprobs = [-1.0, -tiny, 0.0]
    # a few float64 roundings; the float32 sum would be off by 1.5e-8
    assert OBJECTIVES[name](batch, np.array(logprobs, dtype=np.float32)) == pytest.approx(expected, rel=1e-15)


def test_names_and_flags() -> None:
    assert {name: (o.answers_only, o.needs_candidates) for name, o in OBJECTIVES.items()} == {
        "answer-ce": (True, False),
        "candidate-ce": (False, True),
        "accuracy": (False, True),
        "dpo": (False, True),
        "simpo": (False, True),
        "orpo": (False, True),
    }
    assert all(name == objective.name for name, objective in OBJECTIVES.items())
