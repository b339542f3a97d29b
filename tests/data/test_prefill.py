"""Answers that are begun for the model, and prompts without an answer."""

from typing import Any

import pytest
from tests.tiny_models import tiny
from tests.toys import byte_tokenizer

from mezo.build.setup import encode
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.errors import MezoError
from mezo.models.load import LoadedModel
from mezo.objectives import objective_named
from mezo.tasks import RowOptions, task_for

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ASKED = {"role": "user", "content": "6 * 7?"}
BEGUN = {"role": "assistant", "content": "It is "}
OPEN = {"messages": [ASKED, BEGUN], "continue_final_message": True}
TALK = {"messages": [ASKED, {"role": "assistant", "content": "42"}, {"role": "user", "content": "Why?"}]}
MADE: list[Any] = []


def encoded(row: Any, objective: str = "length", prefill: str = "", **config: Any) -> tuple[Any, Any]:
    """The row's example, as a run with this objective has it, and the tokenizer."""
    if not MADE:
        MADE.append(tiny("llama"))
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    task = task_for("auto", reading=RowOptions(prefill=prefill))
    data = MeZODataset([row], task=task)
    loaded = LoadedModel(MADE[0], tokenizer, "causal", "tiny")
    made = encode(data, loaded, MeZOConfig.build(max_new_tokens=8, **config), objective_named(objective))
    return made[0], tokenizer


def refused(*arguments: Any, **options: Any) -> str:
    with pytest.raises(MezoError) as caught:
        encoded(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- begun answers


def test_a_rows_own_beginning_is_behind_the_generation_prompt() -> None:
    example, tokenizer = encoded({**OPEN, "answer": "42"}, "exact")
    assert tokenizer.decode(example.prompt) == "<user>6 * 7?</s><assistant>"
    assert tokenizer.decode(example.asked) == "<user>6 * 7?</s><assistant>It is "
    assert example.said("42 \n") == "It is 42"
    assert example.references == ("42",)
    assert tokenizer.decode(example.candidates[0]) == "42</s>", (
        "the loss is that of the whole answer, not begun"
    )


def test_one_beginning_for_all_rows() -> None:
    example, tokenizer = encoded({"prompt": "6 * 7?\n", "completion": "42"}, "exact", "It is ")
    assert tokenizer.decode(example.asked) == "<s>6 * 7?\nIt is "
    assert tokenizer.decode(example.candidates[0]) == "42</s>"
    plain, _ = encoded({"prompt": "6 * 7?\n", "completion": "42"}, "exact")
    assert (plain.asked, plain.said(" 42")) == (plain.prompt, "42")


def test_a_control_token_in_the_data_is_text_and_in_the_setting_one() -> None:
    begun = {**OPEN, "messages": [ASKED, {"role": "assistant", "content": "a</s>"}]}
    own, _ = encoded({**begun, "answer": "42"}, "exact")
    given, _ = encoded({"prompt": "6 * 7?\n"}, prefill="a</s>")
    assert 2 not in own.begun
    assert 2 in given.begun
    assert own.said("b") == given.said("b") == "a</s>b"


@pytest.mark.parametrize(
    ("row", "objective", "prefill", "expected"),
    [
        (OPEN, "length", "So ", "list[0]: this row has a beginning of its own"),
        ({"prompt": "a", "completion": "b"}, "answer-ce", "So ", "nothing is written with this objective"),
        ({**OPEN, "answer": "42"}, "answer-ce", "", "list[0]: its answer begins with 'It is '"),
        ({**OPEN, "continue_final_message": "yes"}, "length", "", "expected continue_final_message to be true"),
        ({**OPEN, "messages": [ASKED]}, "length", "", "found True and a message of 'user'"),
        ({**OPEN, "messages": [BEGUN]}, "length", "", "another message before it"),
        (OPEN, "answer-ce", "", "expected a turn of the assistant to learn"),
    ],
)  # fmt: skip
def test_beginnings_that_make_no_sense(row: Any, objective: str, prefill: str, expected: str) -> None:
    assert expected in refused(row, objective, prefill)


def test_a_beginning_needs_room() -> None:
    assert "exceed" not in refused({"prompt": "a"}, prefill="b" * 124)
    assert "a prompt of 126 tokens and max_new_tokens=8" in refused({"prompt": "a"}, prefill="b" * 124)


# ---------------------------------------------------------------- prompts alone

NEEDS_NONE = (
    "length",
    "regex(pattern='a')",
    "json",
    "contains(text='a')",
    "0.5*length + 0.5*json",
    "math:hypot",
)
NEED_ONE = ("exact", "last-number", "contains", "f1", "rouge", "0.5*length + 0.5*exact", "1*f1 + 1*length")


@pytest.mark.parametrize("objective", NEEDS_NONE)
@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"prompt": "6 * 7?\n", "level": 1}, "<s>6 * 7?\n"),
        ({"prompt": "6 * 7?\n", "completion": None}, "<s>6 * 7?\n"),
        ({"messages": [ASKED]}, "<user>6 * 7?</s><assistant>"),
        ({"prompt": [ASKED]}, "<user>6 * 7?</s><assistant>"),
        (TALK, "<user>6 * 7?</s><assistant>42</s><user>Why?</s><assistant>"),
        (OPEN, "<user>6 * 7?</s><assistant>It is "),
    ],
)
def test_a_row_without_an_answer_is_a_prompt(row: Any, asked: str, objective: str) -> None:
    example, tokenizer = encoded(row, objective)
    assert tokenizer.decode(example.asked) == asked
    assert (example.candidates, example.references, example.right) == ((), (), ())


@pytest.mark.parametrize("objective", NEED_ONE)
@pytest.mark.parametrize("row", [{"prompt": "6 * 7?\n"}, {"messages": [ASKED]}])
def test_rewards_that_compare_name_the_row(row: Any, objective: str) -> None:
    assert refused(row, objective).startswith("list[0]: ")
    assert "compares with accepted answers, and this row has none" in refused(row, objective)


def test_losses_of_answers_need_one() -> None:
    assert "list[0]: expected a field 'completion', found fields 'prompt'" in refused(
        {"prompt": "a"}, "answer-ce"
    )
    assert "expected a turn of the assistant to learn" in refused({"messages": [ASKED]}, "answer-ce")
    learned, tokenizer = encoded(TALK, "answer-ce")
    assert tokenizer.decode(learned.candidates[0]) == "42</s>", "as ever: what follows is not read"


def test_a_conversation_that_is_too_long_loses_its_earliest_exchanges() -> None:
    example, tokenizer = encoded(TALK, max_length=40)
    assert tokenizer.decode(example.asked) == "<user>Why?</s><assistant>"
    assert "has 18 tokens without what may be left out" in refused(TALK, max_length=12)
