"""Conversations: what of them is learned, token by token, through templates of several kinds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.toys import byte_tokenizer
from transformers import PreTrainedTokenizerBase

from mezo.data import MeZODataset, encode
from mezo.data.chat_templates import CHAT_TEMPLATES, with_chat_template
from mezo.errors import MezoError
from mezo.scoring import Example, pose
from mezo.tasks import TASKS, RowOptions, task_for

CLOSED = (  # every turn ends with the tokenizer's end token
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
OPEN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }};{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
REWRITES = (  # earlier answers lose their first word once another turn follows, as reasoning models' templates do
    "{% for m in messages %}[{{ m['role'] }}]{% if m['role'] == 'assistant' and not loop.last %}"
    "{{ m['content'].split(' ', 1)[-1] }}{% else %}{{ m['content'] }}{% endif %}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
STRICT = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('No system role here.') }}{% endif %}"
    "[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def tokenizer_with(template: str) -> PreTrainedTokenizerBase:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)]


def one(fields: dict[str, Any], template: str = CLOSED, max_length: int = 400, **reading: Any) -> Example:
    data = MeZODataset([fields], task=task_for("auto", reading=RowOptions(**reading)))
    (example,) = encode(data.task, data.rows, tokenizer_with(template), "causal", max_length)
    return example


def learned(example: Example) -> str:
    """What is learned, with | between the stretches of it."""
    (answer,) = example.candidates
    places = range(len(answer)) if example.scored is None else example.scored
    parts: list[list[int]] = []
    for n, place in enumerate(places):
        if n == 0 or places[n - 1] != place - 1:
            parts.append([])
        parts[-1].append(answer[place])
    return "|".join(str(byte_tokenizer().decode(part)) for part in parts)


def prompt(example: Example) -> str:
    return str(byte_tokenizer().decode(list(example.prompt)))


def test_all_turns_of_the_assistant_or_the_last() -> None:
    talk = {"messages": [{"role": "system", "content": "s"}, *turns("a", "b", "c", "d")]}
    example = one(talk)
    assert prompt(example) == "[system]s</s>\n[user]a</s>\n[assistant]"
    assert learned(example) == "b</s>|d</s>"
    assert example.references == ("d",)
    example = one(talk, turns="last")
    assert prompt(example).endswith("[assistant]b</s>\n[user]c</s>\n[assistant]")
    assert learned(example) == "d</s>"


def test_what_is_asked_of_the_model_are_the_learned_tokens_at_their_places() -> None:
    example = one({"messages": turns("a", "bb", "c", "d")})
    posed = pose([example])
    whole = example.prompt + example.candidates[0]
    assert len(posed.query_token) == len("bb") + 1 + len("d") + 1
    assert all(whole[p + 1] == t for p, t in zip(posed.query_position, posed.query_token, strict=True))


def test_turns_that_follow_the_last_answer_are_not_read() -> None:
    assert one({"messages": turns("a", "b", "c")}) == one({"messages": turns("a", "b")})


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": turns("a", "b")},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"prompt": turns("a"), "completion": [{"role": "assistant", "content": "b"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, turns("a", "b")[1]]},
        {"instruction": "a", "output": "b"},
        {"instruction": "a", "input": "", "output": "b"},
        {"question": "a", "answer": "b"},
    ],
)
def test_every_form_of_a_conversation_comes_to_the_same(fields: dict[str, Any]) -> None:
    example = one(fields)
    assert (prompt(example), learned(example)) == ("[user]a</s>\n[assistant]", "b</s>")


def test_answers_inside_trls_prompt_are_context() -> None:
    example = one({"prompt": turns("a", "b", "c"), "completion": [{"role": "assistant", "content": "d"}]})
    assert learned(example) == "d</s>"
    assert "[assistant]b</s>" in prompt(example)


def test_system_text_and_tools_of_a_row_reach_the_template() -> None:
    template = "{{ tools | length if tools else 0 }}" + CLOSED
    talk = {
        "messages": turns("a", "b"),
        "system": "s",
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    assert prompt(one(talk, template)) == "1[system]s</s>\n[user]a</s>\n[assistant]"
    called = [*turns("a"), {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]
    called += [{"role": "tool", "content": "42"}, {"role": "assistant", "content": "b"}]
    assert learned(one({"messages": called}, turns="last")) == "b</s>"
    assert "[tool]42</s>" in prompt(one({"messages": called}, turns="last"))


def test_a_template_that_closes_no_turn_gets_the_end_token_after_the_last() -> None:
    assert learned(one({"messages": turns("a", "b", "c", "d")}, OPEN)) == "b;|d;</s>"
    assert learned(one({"messages": turns("a", "b")}, OPEN, append_eos=False)) == "b;"


def test_control_tokens_inside_a_message_are_text() -> None:
    example = one({"messages": turns("x</s>y", "b</s>c")})
    assert example.prompt.count(2) == 1
    assert example.candidates[0].count(2) == 1
    assert learned(example) == "b</s>c</s>"
    assert one({"messages": turns("x</s>y", "b")}, parse_special=True).prompt.count(2) == 2


def test_too_long_a_conversation_loses_its_earliest_exchanges_then_the_end_of_the_answer() -> None:
    talk = {"messages": [{"role": "system", "content": "s"}, *turns("a" * 50, "b" * 50, "c", "d")]}
    assert prompt(one(talk, max_length=80)) == "[system]s</s>\n[user]c</s>\n[assistant]"
    example = one({"messages": turns("a", "b" * 100)}, max_length=40)
    assert len(example.prompt) + len(example.candidates[0]) == 40
    assert set(learned(example)) == {"b"}
    with pytest.raises(
        MezoError, match=r"data\[0\]: the conversation before its last answer has .* max_length is 10"
    ):
        one({"messages": turns("a", "b")}, max_length=10)


def test_a_template_that_rewrites_earlier_turns_is_refused_for_all_and_right_for_the_last() -> None:
    talk = {"messages": turns("a", "hm b", "c", "hm d")}
    with pytest.raises(MezoError, match=r"data\[0\]: .* writes message 1 differently .*--turns last"):
        one(talk, REWRITES)
    example = one(talk, REWRITES, turns="last")
    assert learned(example) == "hm d</s>"
    assert "[assistant]b</s>" in prompt(example)


def test_what_a_template_refuses_is_said_with_the_row() -> None:
    with pytest.raises(MezoError, match=r"data\[0\]: the chat template refuses .*: No system role here"):
        one({"messages": [{"role": "system", "content": "s"}, *turns("a", "b")]}, STRICT)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("text", "expected a list of messages"),
        ([], "expected a list of messages"),
        (["a"], "message 0 .* expected an object with role and content"),
        ([{"content": "a"}], "message 0 .* expected a role, found fields 'content'"),
        ([{"role": "narrator", "content": "a"}], "expected a role of system, .* found 'narrator'"),
        ([{"role": "user", "content": 5}], "expected text as its content, found 5"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "expected text as its content"),
        (turns("a"), "expected a turn of the assistant to learn, or a field answer, found none"),
        (turns("a", ""), "expected a turn of the assistant with some text"),
    ],
)
def test_what_is_no_conversation(messages: Any, said: str) -> None:
    with pytest.raises(
        MezoError, match=rf"^data\[0\]: .*{said}" if not said.startswith("message") else said
    ) as caught:
        one({"messages": messages}, append_eos=False, template=OPEN.replace(";", ""))
    assert "\n" not in str(caught.value)


def test_a_model_without_a_template_is_told_of_those_there_are() -> None:
    data = MeZODataset([{"messages": turns("a", "b")}])
    with pytest.raises(MezoError, match="tokenizer has none: give --chat-template chatml"):
        encode(data.task, data.rows, byte_tokenizer(), "causal", 50)


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_every_named_template_learns_the_answers(name: str) -> None:
    tokenizer = with_chat_template(byte_tokenizer(), name)
    data = MeZODataset([{"messages": [{"role": "system", "content": "s"}, *turns("a", "b", "c", "d")]}])
    (example,) = encode(data.task, data.rows, tokenizer, "causal", 400)
    (answer,) = example.candidates
    assert answer[-1] == tokenizer.eos_token_id
    found = learned(example)
    assert "b" in found
    assert "d" in found
    assert "c" not in found


def test_an_unknown_template_names_those_there_are(tmp_path: Any) -> None:
    with pytest.raises(MezoError, match="unknown chat template 'chatlm'; did you mean 'chatml'"):
        with_chat_template(byte_tokenizer(), "chatlm")
    path = tmp_path / "mine.jinja"
    path.write_text(CLOSED)
    assert with_chat_template(byte_tokenizer(), str(path)).chat_template == CLOSED


safe = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=8)


@given(st.lists(safe, min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0))
def test_the_learned_text_is_the_answers_whatever_they_are(texts: list[str]) -> None:
    example = one({"messages": turns(*texts)}, max_length=2000)
    assert learned(example) == "|".join(f"{text}</s>" for text in texts[1::2])


def test_tasks_with_a_plain_form_use_it_without_a_template() -> None:
    rows = {
        "instruction": {"instruction": "Add", "input": "1 2", "output": "3"},
        "question-answer": {"question": "q", "answer": "a"},
    }
    for name, fields in rows.items():
        data = MeZODataset([fields])
        assert data.task.name == name
        (example,) = encode(TASKS[name], data.rows, byte_tokenizer(), "causal", 400)
        assert example.candidates[0][-1] == 2
