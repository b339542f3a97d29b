"""Scores of plans, against cases worked out by hand."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mezo.ablation.judge import rules
from mezo.ablation.judge.language_model import LanguageModelJudge
from mezo.ablation.judge.score import matched, score
from mezo.ablation.plans.plan import Plan
from mezo.errors import MezoError


def plan_of(*studies: tuple[str, str, Any]) -> Plan:
    fields = ("ablated_part", "action", "replacement")
    return Plan.build(
        studies=[{"name": f"s{n}", **dict(zip(fields, s, strict=True))} for n, s in enumerate(studies)]
    )


def table(rows: Sequence[Sequence[float]]) -> Callable[[Plan, Plan], Sequence[Sequence[float]]]:
    return lambda plan, gold: rows


def of_size(count: int) -> Plan:
    return plan_of(*[("epsilon", "REMOVE", None)] * count)


# -------------------------------------------------------------------------------- scores


def test_scores_by_hand() -> None:
    # the second and the fourth of four studies match two of three
    found = score(of_size(4), of_size(3), table([[0, 0, 0], [0, 1, 0], [0, 0, 0], [0.5, 0, 0]]))
    assert [(pair.study, pair.gold, pair.likeness) for pair in found.pairs] == [(1, 1, 1.0), (3, 0, 0.5)]
    assert (found.precision, found.recall, found.f1) == (
        2 / 4,
        2 / 3,
        2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3),
    )
    gain = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)  # three could have matched
    assert found.ndcg == pytest.approx(gain / ideal, rel=1e-12)  # the same sums, in another order


def test_nothing_and_everything() -> None:
    none = score(of_size(2), of_size(3), table([[0] * 3] * 2))
    assert (none.precision, none.recall, none.f1, none.ndcg) == (0, 0, 0, 0)
    one = score(of_size(2), of_size(5), table([[0.3, 0.3, 0, 0, 0]] * 2))
    assert (one.precision, one.recall, one.ndcg) == (1, 2 / 5, 1)  # more than two cannot be asked of two


def test_earlier_matches_count_more() -> None:
    first = score(of_size(3), of_size(1), table([[1], [0], [0]]))
    last = score(of_size(3), of_size(1), table([[0], [0], [1]]))
    assert (first.ndcg, last.ndcg) == (1, 1 / math.log2(4))
    assert first.f1 == last.f1


LIKENESS = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from([0, 0, 0.25, 0.5, 1.0]), min_size=width, max_size=width),
        min_size=1,
        max_size=4,
    )
)


@settings(max_examples=60, deadline=None)
@given(LIKENESS)
def test_the_matching_is_the_best_of_all(rows: list[list[float]]) -> None:
    """Most pairs, then most alike: against every way to choose."""
    best = (0, 0.0)
    for size in range(1, min(len(rows), len(rows[0])) + 1):
        for chosen in itertools.combinations(range(len(rows)), size):
            for others in itertools.permutations(range(len(rows[0])), size):
                found = [rows[r][c] for r, c in zip(chosen, others, strict=True)]
                if all(found):
                    best = max(best, (size, sum(found)))
    pairs = matched(rows)
    assert (len(pairs), sum(pair.likeness for pair in pairs)) == best
    assert len({pair.study for pair in pairs}) == len({pair.gold for pair in pairs}) == len(pairs)


# -------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("mine", "gold", "likeness"),
    [
        # the same part in other words, half of the reference's replacements
        (("perturbation scale ε", "REPLACE", [0.01]), ("epsilon of SPSA", "REPLACE", ["1e-2", "1e-4"]), 0.75),
        (("number of directions", "REPLACE", ["n = 4"]), ("samples of n-SPSA", "REPLACE", [4]), 1.0),
        (("SPSA estimator", "REPLACE", ["one-sided"]), ("gradient estimator", "REPLACE", ["forward differences"]), 1.0),
        # no replacement in common
        (("epsilon", "REPLACE", [0.01]), ("epsilon", "REPLACE", [0.1]), 0.0),
        # other parts, the same number
        (("epsilon", "REPLACE", [4]), ("number of directions", "REPLACE", [4]), 0.0),
        # an action that the other side allows: both come to plain SGD
        (("momentum", "REMOVE", None), ("momentum optimizer", "REPLACE", ["SGD"]), 1.0),
        (("momentum", "REMOVE", None), ("momentum", "ADD", None), 0.0),
        (("momentum", "ADD", None), ("base optimizer SGD", "REPLACE", ["SGD with momentum", "Adam"]), 0.75),
        (("in-place implementation", "REMOVE", None), ("memory mode", "REPLACE", ["store the full z"]), 1.0),
        # removal is what it is, whatever is said beside it
        (("weight decay", "REMOVE", None), ("weight decay", "REMOVE", ["no decay at all"]), 1.0),
        # what no part of the table is goes by its words
        (("dropout in the decoder", "REMOVE", None), ("the dropout of the decoder", "REMOVE", None), 1.0),
        (("dropout in the decoder", "REMOVE", None), ("data augmentation", "REMOVE", None), 0.0),
    ],
)  # fmt: skip
def test_rules_by_hand(mine: tuple[str, str, Any], gold: tuple[str, str, Any], likeness: float) -> None:
    assert rules.likeness(plan_of(mine), plan_of(gold)) == [[likeness]]


def test_a_plan_matches_itself() -> None:
    plan = plan_of(
        ("epsilon", "REPLACE", [0.01, 0.1]), ("momentum", "ADD", None), ("label smoothing", "REMOVE", None)
    )
    found = score(plan, plan, rules.likeness)
    assert [(pair.study, pair.gold, pair.likeness) for pair in found.pairs] == [(n, n, 1.0) for n in range(3)]
    assert found.f1 == found.ndcg == 1


# -------------------------------------------------------------------------------- a language model

MINE = plan_of(("epsilon", "REPLACE", [1]), ("momentum", "ADD", None), ("dropout", "REMOVE", None))
GOLD = plan_of(("dropout", "REMOVE", None), ("scale", "REPLACE", [1]))


class Model:
    """Answers by what it is shown; keeps what it was asked."""

    def __init__(self, answer: Callable[[list[dict[str, Any]], list[dict[str, Any]]], str]) -> None:
        self.answer, self.asked = answer, []

    def ask(self, messages: Any) -> str:
        self.asked.append(messages)
        first, second = messages[1]["content"].removeprefix("List A:\n").split("\n\nList B:\n")
        return self.answer(*([json.loads(line) for line in side.splitlines()] for side in (first, second)))


def by_part(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> str:
    """Matches equal parts, and epsilon with scale."""
    same = {"scale": "epsilon"}
    pairs = [
        {"a": a["number"], "b": b["number"]}
        for a, b in itertools.product(first, second)
        if same.get(a["ablated_part"], a["ablated_part"]) == same.get(b["ablated_part"], b["ablated_part"])
    ]
    return f"Let me see.\n```json\n{json.dumps({'matches': pairs})}\n```"


def test_a_judge_that_is_right_is_right_whatever_is_shuffled() -> None:
    for seed in range(10):
        model = Model(by_part)
        assert LanguageModelJudge(model, votes=3, seed=seed)(MINE, GOLD) == [[0, 1], [0, 0], [1, 0]]
        assert len(model.asked) == 3


def test_sides_are_blinded_and_shuffled() -> None:
    model = Model(by_part)
    LanguageModelJudge(model, votes=40)(MINE, GOLD)
    questions = [messages[1]["content"] for messages in model.asked]
    assert not any(word in text for text in questions for word in ("s0", "s1", "name", "title", "gold"))
    sides = [text.split("\n\nList B")[0].count("number") for text in questions]
    assert {sides.count(3), sides.count(2)} != {0, 40}  # which side is A: 2 * 2^-40 to fail by chance
    assert len(set(questions)) > 2  # and in more than the two orders that sides alone would give
    again = Model(by_part)
    LanguageModelJudge(again, votes=40)(MINE, GOLD)
    assert [m[1]["content"] for m in again.asked] == questions


def test_pairs_need_more_than_half_of_the_votes() -> None:
    answers = itertools.cycle([by_part, by_part, lambda first, second: '{"matches": []}'])
    model = Model(lambda first, second: next(answers)(first, second))
    assert LanguageModelJudge(model, votes=3)(MINE, GOLD)[0] == [0, 2 / 3]
    few = itertools.cycle([by_part, lambda first, second: '{"matches": []}'])
    assert LanguageModelJudge(Model(lambda a, b: next(few)(a, b)), votes=2)(MINE, GOLD) == [[0, 0]] * 3


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("I will not.", "no JSON object with matches"),
        ('{"matches": 3}', "no list"),
        ('{"matches": [{"a": 1}]}', "is no pair of numbers from 1 to"),
        ('{"matches": [{"a": 9, "b": 1}]}', "is no pair"),
        ('{"matches": [{"a": 0, "b": 1}]}', "is no pair"),
        ('{"matches": [{"a": true, "b": 1}]}', "is no pair"),
        ('{"matches": [{"a": 1, "b": 1}, {"a": 2, "b": 1}]}', "matched twice"),
        ('{"matches": [', "no JSON object"),
        ("{" * 5000, "no JSON object"),
    ],
)
def test_malformed_answers(answer: str, told: str) -> None:
    model = Model(lambda first, second: answer)
    with pytest.raises(MezoError, match=f"3 of 3 answers.*{told}"):
        LanguageModelJudge(model, votes=3)(MINE, GOLD)
    assert len(model.asked) == 6  # each vote asks once more, and says why
    assert told in model.asked[1][-1]["content"]


def test_a_malformed_answer_is_asked_for_once_more() -> None:
    answers = iter(["nonsense", None, None, "nonsense", None])
    model = Model(lambda first, second: next(answers) or by_part(first, second))
    assert LanguageModelJudge(model, votes=3)(MINE, GOLD) == [[0, 1], [0, 0], [1, 0]]


def test_void_votes_do_not_count() -> None:
    answers = iter(["nonsense", "nonsense", None, None])
    model = Model(lambda first, second: next(answers) or by_part(first, second))
    assert LanguageModelJudge(model, votes=3)(MINE, GOLD)[2] == [1, 0]
