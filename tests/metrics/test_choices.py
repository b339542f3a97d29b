"""Metrics of choices: by hand, and against scikit-learn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from mezo.errors import MezoError
from mezo.metrics import METRICS, ChoiceMetric
from mezo.scoring import Example


def value(name: str, examples: list[Example], choices: list[int]) -> float:
    metric = METRICS[name]
    assert isinstance(metric, ChoiceMetric)
    return metric.of(examples, choices)


def of_classes(answers: list[int], num_classes: int = 3) -> list[Example]:
    return [Example((9,), tuple((c,) for c in range(num_classes)), a) for a in answers]


def test_accuracy_counts_every_right_candidate() -> None:
    example = Example((9,), ((1,), (2,), (3,)), 0, answers=(0, 2))
    assert value("accuracy", [example] * 4, [0, 1, 2, 2]) == 0.75


labels = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12)


@given(labels)
def test_accuracy_and_macro_f1_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    answers, choices = [a for a, _ in pairs], [c for _, c in pairs]
    assert value("accuracy", of_classes(answers), choices) == pytest.approx(accuracy_score(answers, choices))
    expected = f1_score(answers, choices, average="macro", zero_division=0)  # type: ignore[arg-type]
    # a mean of at most three quotients
    assert value("macro-f1", of_classes(answers), choices) == pytest.approx(expected, rel=1e-14)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=12))
def test_multirc_f1a_is_the_f1_of_true(pairs: list[tuple[int, int]]) -> None:
    answers, choices = [a for a, _ in pairs], [c for _, c in pairs]
    expected = f1_score(answers, choices, pos_label=1, average="binary", zero_division=0)  # type: ignore[arg-type]
    assert value("multirc-f1a", of_classes(answers, 2), choices) == pytest.approx(expected, rel=1e-14)


def test_multirc_by_hand() -> None:
    """Question p-0 has three answers, all judged rightly; p-1 has two, one of them wrongly."""
    groups, answers = ["p-0", "p-1", "p-0", "p-1", "p-0"], [1, 1, 0, 0, 1]
    examples = [Example((9,), ((1,), (2,)), a, group=g) for a, g in zip(answers, groups, strict=True)]
    choices = [1, 1, 0, 1, 1]
    assert value("multirc-em", examples, choices) == 0.5
    assert value("multirc-f1a", examples, choices) == 2 * 3 / (2 * 3 + 1)  # 3 true positives, 1 false one


def test_answers_without_a_group_are_questions_of_their_own() -> None:
    assert value("multirc-em", of_classes([0, 1, 0, 1], 2), [0, 1, 1, 0]) == 0.5


def entity_example() -> Example:
    names = ["Kate Middleton", "The Duchess", "duchess!", "Thames"]
    return Example(
        (9,),
        tuple((c,) for c in range(4)),
        1,
        answers=(1,),
        references=("The Duchess", "the Duchess of Cambridge"),
        fields={"entities": names},
    )


@pytest.mark.parametrize(
    ("choice", "em", "f1"),
    [
        (0, 0.0, 0.0),
        (1, 1.0, 1.0),
        (2, 1.0, 1.0),  # another spelling of the same, once normalised
        (3, 0.0, 0.0),
    ],
)
def test_record_compares_the_entity_as_text(choice: int, em: float, f1: float) -> None:
    assert value("record-em", [entity_example()], [choice]) == em
    assert value("record-f1", [entity_example()], [choice]) == f1


def test_record_takes_the_best_of_several_answers() -> None:
    example = Example(
        (9,),
        ((1,), (2,)),
        0,
        references=("Cambridge", "Duchess of Cambridge"),
        fields={"entities": ["Catherine Duchess of Cambridge", "Thames"]},
    )
    # words catherine duchess of cambridge: against the second answer 3 of 4 and 3 of 3
    assert value("record-f1", [example, example], [0, 1]) == pytest.approx((2 * 3 / (4 + 3)) / 2)
    assert value("record-em", [example], [0]) == 0.0


def test_record_needs_entities() -> None:
    with pytest.raises(MezoError, match="found 0 entities and 3 candidates; use these metrics with the task"):
        value("record-em", of_classes([0]), [0])
