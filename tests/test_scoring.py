"""Poses: rows are merged, and what they ask is what an unmerged layout asks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.scoring import Example, ScoringBatch, candidate_scores, pose, predictions


def questions(batch: ScoringBatch) -> list[tuple[int, tuple[int, ...], int]]:
    """Each query as (candidate, the tokens it is conditioned on, the token asked for)."""
    return [
        (int(c), batch.rows[r][: p + 1], int(t))
        for c, r, p, t in zip(
            batch.query_candidate, batch.query_row, batch.query_position, batch.query_token, strict=True
        )
    ]


def naive(examples: list[Example]) -> list[tuple[int, tuple[int, ...], int]]:
    """The same for causal examples, a row a candidate, nothing merged."""
    asked, number = [], 0
    for example in examples:
        for candidate in example.candidates:
            asked += [(number, example.prompt + candidate[:i], t) for i, t in enumerate(candidate)]
            number += 1
    return asked


token = st.integers(0, 2)  # few, so that candidates often begin alike
tokens = st.lists(token, min_size=1, max_size=4).map(tuple)


@st.composite
def causal_examples(draw: st.DrawFn) -> Example:
    candidates = tuple(draw(st.lists(tokens, min_size=1, max_size=4)))
    return Example(draw(tokens), candidates, draw(st.integers(0, len(candidates) - 1)))


@given(st.lists(causal_examples(), min_size=1, max_size=5))
def test_a_causal_pose_asks_what_a_row_a_candidate_would(examples: list[Example]) -> None:
    batch = pose(examples)
    assert questions(batch) == naive(examples)
    assert batch.candidate_example.tolist() == [n for n, e in enumerate(examples) for _ in e.candidates]
    answers = [c == e.answer for e in examples for c in range(len(e.candidates))]
    assert batch.candidate_is_answer.tolist() == answers
    assert batch.num_examples == len(examples)


@given(st.lists(causal_examples(), min_size=1, max_size=5))
def test_no_row_begins_another_of_the_same_example(examples: list[Example]) -> None:
    for example in examples:
        rows = pose([example]).rows
        assert not any(
            a != b and long[: len(short)] == short
            for a, short in enumerate(rows)
            for b, long in enumerate(rows)
        )


@given(st.lists(causal_examples(), min_size=1, max_size=5))
def test_answers_only_asks_for_the_right_candidates_alone(examples: list[Example]) -> None:
    alone = [Example(e.prompt, (e.candidates[e.answer],), 0) for e in examples]
    batch, expected = pose(examples, answers_only=True), pose(alone)
    assert questions(batch) == questions(expected)
    assert batch.rows == expected.rows
    assert batch.candidate_is_answer.all()


def test_candidates_of_one_token_cost_one_row() -> None:
    batch = pose([Example((7, 8, 9), ((1,), (2,), (3,)), 2)])
    assert batch.rows == ((7, 8, 9),)
    assert batch.query_position.tolist() == [2, 2, 2]
    assert batch.query_token.tolist() == [1, 2, 3]
    assert batch.num_tokens == 3


def test_candidates_of_several_tokens_share_what_they_can() -> None:
    # (4, 5) is read off the row of (4, 5, 6); (5, 5) needs its own; last tokens are never fed.
    batch = pose([Example((7,), ((4, 5), (4, 5, 6), (5, 5)), 0)])
    assert sorted(batch.rows) == [(7, 4, 5), (7, 5)]
    assert batch.num_tokens == 5


def test_a_masked_example_is_one_row_read_at_its_mask() -> None:
    batch = pose([Example((7, 0, 9), ((1,), (2,)), 1, mask_position=1), Example((0, 5), ((2,),), 0, 0)])
    assert batch.rows == ((7, 0, 9), (0, 5))
    assert batch.query_row.tolist() == [0, 0, 1]
    assert batch.query_position.tolist() == [1, 1, 0]
    assert batch.query_token.tolist() == [1, 2, 2]
    assert batch.query_candidate.tolist() == [0, 1, 2]


@pytest.fixture
def ragged() -> ScoringBatch:
    """Two candidates of two and one tokens, then three of one token."""
    return pose([Example((9,), ((1, 2), (3,)), 0), Example((9,), ((1,), (2,), (3,)), 2)])


def test_the_score_of_a_candidate_is_the_mean_of_its_tokens(ragged: ScoringBatch) -> None:
    logprobs = np.array([-1.0, -2.0, -4.0, -3.0, -2.5, -0.5])
    assert candidate_scores(ragged, logprobs).tolist() == [-1.5, -4.0, -3.0, -2.5, -0.5]


def test_predictions_are_positions_within_the_example_and_the_first_of_equals(ragged: ScoringBatch) -> None:
    assert predictions(ragged, np.array([-1.0, -2.0, -4.0, -3.0, -2.5, -0.5])).tolist() == [0, 2]
    assert predictions(ragged, np.array([-3.0, -3.0, -3.0, -4.0, -2.0, -2.0])).tolist() == [0, 1]
