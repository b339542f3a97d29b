"""What is asked of a serving engine is what was posed, in fewer rows."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.engines.serving.backend import Answer, Ask
from mezo.engines.serving.requests import WORTH, asked, check_fresh, in_waves, waves
from mezo.errors import MezoError
from mezo.scoring import Example, pose

TOKENS = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)
EXAMPLES = st.lists(
    st.builds(
        lambda prompt, candidates, answer: Example(prompt, tuple(candidates), answer % len(candidates)),
        TOKENS,
        st.lists(TOKENS, min_size=1, max_size=4, unique=True),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=4,
)


def logprob(before: tuple[int, ...], token: int) -> float:
    """Of a model that is a function of its row."""
    return -(hash((before, token)) % 10_007) / 1000


def answer(ask: Ask) -> Answer:
    if ask.choices:
        values = tuple(logprob(ask.tokens, token) for token in ask.choices)
    else:
        assert ask.start >= 1
        values = tuple(logprob(ask.tokens[:i], ask.tokens[i]) for i in range(ask.start, len(ask.tokens)))
    return Answer(values, len(ask.tokens), 0)


@given(EXAMPLES, st.booleans())
def test_every_query_gets_its_own_log_probability(examples: list[Example], answers_only: bool) -> None:
    posed = pose(examples, answers_only=answers_only)
    found = asked(posed)
    values = found.values([answer(ask) for ask in found.of(None)])
    expected = [
        logprob(posed.rows[row][: position + 1], token)
        for row, position, token in zip(posed.query_row, posed.query_position, posed.query_token, strict=True)
    ]
    assert values.tolist() == expected
    assert len(set(found.asks)) == len(found.asks)
    assert found.tokens >= sum(len(ask.tokens) for ask in found.asks)


def test_candidates_of_one_token_are_one_question() -> None:
    found = asked(pose([Example((1, 2, 3), ((7,), (8,), (9,)), 0)]))
    assert found.asks == (Ask((1, 2, 3), choices=(7, 8, 9)),)


def test_a_completion_is_asked_for_from_its_first_token_on() -> None:
    found = asked(pose([Example((1, 2, 3), ((7, 8, 9),), 0)]))
    assert found.asks == (Ask((1, 2, 3, 7, 8, 9), start=3),)


def test_equal_rows_are_asked_once() -> None:
    example = Example((1, 2), ((7,), (8,)), 0)
    found = asked(pose([example, example]))
    assert len(found.asks) == 1
    assert found.tokens == 4
    assert found.values([Answer((-1.0, -2.0), 2, 0)]).tolist() == [-1, -2, -1, -2]


@given(st.lists(TOKENS, min_size=1, max_size=6, unique=True), st.data())
def test_what_rows_have_in_common_may_be_cached_and_no_more(
    rows: list[tuple[int, ...]], data: st.DataObject
) -> None:
    asks = [Ask(row, choices=(1,)) for row in rows]
    most = [max((common(row, other) for other in rows if other is not row), default=0) for row in rows]
    cached = [data.draw(st.integers(0, n)) for n in most]
    answers = [Answer((-1.0,), len(r), c) for r, c in zip(rows, cached, strict=True)]
    check_fresh(asks, answers)
    which = data.draw(st.integers(0, len(rows) - 1))
    answers[which] = Answer((-1.0,), len(rows[which]), most[which] + 1)
    with pytest.raises(MezoError, match=f"took {most[which] + 1} tokens .* have {most[which]} in common"):
        check_fresh(asks, answers)


def test_rows_of_another_adapter_have_nothing_in_common() -> None:
    asks = [Ask((1, 2, 3), 2, adapter) for adapter in ("a", "b")]
    with pytest.raises(MezoError, match=r"took 1 tokens .* have 0 in common"):
        check_fresh(asks, [Answer((-1.0,), 3, 0), Answer((-1.0,), 3, 1)])


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2), TOKENS), min_size=1, max_size=8))
def test_rows_that_begin_alike_follow_one_that_is_ahead(rows: list[tuple[str, int, tuple[int, ...]]]) -> None:
    asks = [Ask((10 + group,) * WORTH + row, 1, adapter) for adapter, group, row in rows]
    first, *later = waves(asks)
    assert sorted(first + [i for wave in later for i in wave]) == list(range(len(asks)))
    groups = [(asks[i].adapter, asks[i].tokens[0]) for i in first]
    assert len(set(groups)) == len(groups) == len({(a, g) for a, g, _ in rows})
    calls: list[int] = []

    def score(part: Sequence[Ask]) -> list[Answer]:
        calls.append(len(part))
        return [Answer((-float(asks.index(ask)),), len(ask.tokens), 0) for ask in part]

    answers = in_waves(asks, score)
    assert calls == [len(first), *map(len, later)]
    assert [-a.logprobs[0] for a in answers] == [asks.index(ask) for ask in asks]


def common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return next((i for i in range(min(len(a), len(b))) if a[i] != b[i]), min(len(a), len(b)))


def test_log_probabilities_come_as_float64() -> None:
    found = asked(pose([Example((1, 2), ((7,),), 0)]))
    values = found.values([Answer((math.log(0.25),), 2, 0)])
    assert values.dtype == np.float64
