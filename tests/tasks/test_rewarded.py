"""Tasks whose answers are judged by rewards: countdown, gsm8k, and messages with a reference answer."""

from typing import Any

import pytest
from tests.toys import byte_tokenizer

from mezo.data import MeZODataset
from mezo.errors import MezoError, MissingSplit
from mezo.objectives import Reward, objective_named
from mezo.tasks import TASKS, Row, task_for

TALK = [{"role": "user", "content": "6 * 7?"}]


def encoded(rows: Any, task: str = "auto", *, template: bool = True) -> tuple[Any, Any]:
    tokenizer = byte_tokenizer()
    if template:
        tokenizer.chat_template = (
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
            "{% if add_generation_prompt %}<assistant>{% endif %}"
        )
    (example,) = MeZODataset(rows, task=task).encode(tokenizer, "causal", 500)
    return example, tokenizer


# ---------------------------------------------------------------- countdown


@pytest.mark.parametrize(
    "name",
    [
        "countdown",
        "countdown(numbers=2, largest=9, rows=100)",
        "countdown(numbers=5, largest=50, target=500)",
    ],
)
def test_every_problem_has_its_solution(name: str) -> None:
    task = task_for(name)
    reward = objective_named("countdown")
    assert isinstance(reward, Reward)
    for split in ("train", "validation", "test"):
        rows = MeZODataset(None, task=task, split=split).rows
        examples = MeZODataset(None, task=task, split=split).encode(byte_tokenizer(), "causal", 500)
        assert reward(list(examples), [str(row.fields["solution"]) for row in rows]) == -1.0


def test_splits_share_no_problem_whatever_the_seed() -> None:
    def problems(split: str, seed: int) -> set[tuple[Any, ...]]:
        task = task_for(f"countdown(seed={seed})")
        return {(*sorted(r["numbers"]), r["target"]) for r in task.generated(split)}

    held_out = problems("validation", 0) | problems("test", 1)
    assert len(problems("train", 0)) == 2000
    assert not held_out & (problems("train", 0) | problems("train", 1))
    assert not problems("validation", 0) & problems("test", 0)
    assert problems("train", 0) != problems("train", 1)


def test_the_same_seed_gives_the_same_problems_for_ever() -> None:
    """They are part of what a run is: another release may not make others."""
    rows = task_for("countdown").generated("train")
    assert rows[:2] == task_for("countdown(rows=10)").generated("train")[:2]
    assert rows[0] == FIRST


FIRST = {"numbers": [3, 1, 18], "target": 6, "solution": "18 / 3 * 1"}


def test_difficulty_is_kept() -> None:
    rows = task_for("countdown(numbers=4, largest=7, target=30)").generated("train")
    assert all(len(r["numbers"]) == 4 and max(r["numbers"]) <= 7 and 0 < r["target"] <= 30 for r in rows)
    assert {sign for r in rows for sign in "+-*/" if sign in r["solution"]} == set("+-*/")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("countdown(numbers=1)", "expected numbers from 2 to 8, found 1"),
        ("countdown(numbers='3')", "expected numbers from 2 to 8"),
        ("countdown(metrics=3)", "task 'countdown' has no setting 'metrics'"),
        ("countdown(number=3)", "no setting 'number'.*numbers"),
        ("sst2(numbers=3)", "task 'sst2' has no setting 'numbers'"),
    ],
)
def test_settings_are_checked(name: str, said: str) -> None:
    with pytest.raises(MezoError, match=said):
        task_for(name)


def test_more_problems_than_there_are() -> None:
    with pytest.raises(MezoError, match="ask for fewer rows"):
        task_for("countdown(numbers=2, largest=2, rows=1000)").generated("train")
    with pytest.raises(MissingSplit, match="expected the split train, validation or test"):
        MeZODataset(None, task="countdown", split="other")


def test_a_row_of_ones_own_is_read_and_a_broken_one_named() -> None:
    row = {"numbers": [2, 9], "target": 7, "solution": "9 - 2"}
    example, tokenizer = encoded([row], "countdown")
    assert "equals 7. Use each of the numbers 2, 9 once" in tokenizer.decode(list(example.prompt))
    assert tokenizer.decode(list(example.candidates[0])) == "9 - 2</s>"
    with pytest.raises(MezoError, match=r"data\[0\]: expected whole numbers"):
        encoded([{**row, "numbers": "2 9"}], "countdown")


# ---------------------------------------------------------------- gsm8k


def test_gsm8k_in_its_own_fields() -> None:
    for template in (True, False):
        example, tokenizer = encoded([dict(TASKS["gsm8k"].samples[0])], "gsm8k", template=template)
        assert example.references == ("84",)
        said = tokenizer.decode(list(example.candidates[0]))
        assert "6 * 7 = 42 pears." in said
        assert "<<" not in said
    reward = objective_named("last-number")
    assert isinstance(reward, Reward)
    assert reward.each([example] * 2, ["so 84", "83"]) == [1.0, 0.0]


@pytest.mark.parametrize("answer", ["It is 84.", "#### none", ""])
def test_an_answer_without_its_number_is_named(answer: str) -> None:
    with pytest.raises(MezoError, match=r"data\[0\]: expected field 'answer' to end in #### and a number"):
        encoded([{"question": "q", "answer": answer}], "gsm8k")


# ---------------------------------------------------------------- messages with a reference answer


@pytest.mark.parametrize(
    ("row", "answer", "references"),
    [
        ({"messages": TALK, "answer": "42"}, "42</s>", ("42",)),
        ({"messages": TALK, "answer": 42}, "42</s>", ("42",)),
        ({"messages": TALK, "reference": ["42", "forty-two"]}, "42</s>", ("42", "forty-two")),
        (
            {"messages": [*TALK, {"role": "assistant", "content": "So 42."}], "answer": "42"},
            "So 42.</s>",
            ("42",),
        ),
        (
            {"messages": [*TALK, {"role": "assistant", "content": "So 42."}], "answer": {"a": 1}},
            "So 42.</s>",
            ("So 42.",),
        ),
        (
            {"messages": [*TALK, {"role": "assistant", "content": "?"}, *TALK], "answer": "42"},
            "42</s>",
            ("42",),
        ),
    ],
)
def test_what_messages_are_compared_with(
    row: dict[str, Any], answer: str, references: tuple[str, ...]
) -> None:
    example, tokenizer = encoded([row])
    assert tokenizer.decode(list(example.candidates[0])) == answer
    assert example.references == references
    assert tokenizer.decode(list(example.prompt)).endswith("<user>6 * 7?</s><assistant>")


@pytest.mark.parametrize("given", [{}, {"answer": ""}, {"answer": []}, {"answer": {"a": 1}}])
def test_messages_without_an_answer_are_named(given: dict[str, Any]) -> None:
    with pytest.raises(MezoError, match=r"data\[0\]: expected"):
        encoded([{"messages": TALK, **given}])


def test_where_names_the_row() -> None:
    with pytest.raises(MezoError, match=r"x\.jsonl:3: expected a list of texts"):
        TASKS["chat"].conversation(Row({"messages": TALK, "answer": [1]}, "x.jsonl", 3, True))
