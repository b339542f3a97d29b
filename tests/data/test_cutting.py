"""What gives way where a prompt is too long, and what comes along with the tokens."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.test_encode import BYTES, WORDS, one, safe, text_of
from tests.shared import shared
from tests.toys import byte_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mezo.errors import MezoError
from mezo.tasks import MASK, TASKS, Row, Task, TextExample


@pytest.fixture(params=["bytes", "words", "no-bos", "stories260k", "bert-tiny-mlm"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    toys = {"bytes": BYTES, "words": WORDS, "no-bos": byte_tokenizer(bos=False)}
    return toys.get(request.param) or AutoTokenizer.from_pretrained(shared(f"models/{request.param}"))


CONTEXT = "The mill was built in 1712. It burned down twice. "
ASKED = {
    "title": "Mill",
    "context": CONTEXT * 6,
    "question": "When was the mill built?",
    "answers": {"text": ["1712", "in 1712"]},
}


def asked(**changes: str) -> Row:
    return Row({**ASKED, **changes}, "data.jsonl", 3, is_line=True)


def test_a_long_passage_loses_its_beginning_and_the_question_stays() -> None:
    example = one(TASKS["squad"], asked(), BYTES, max_length=120)
    head, tail = "<s>Title: Mill\nContext: ", "\nQuestion: When was the mill built?\nAnswer:"
    text = text_of(BYTES, example.prompt)
    assert text.startswith(head)
    assert text.endswith(tail)
    assert (CONTEXT * 6).endswith(text[len(head) : -len(tail)])
    assert len(example.prompt) + len(" 1712\n") == 120


@pytest.mark.parametrize("length", [60, 90, 150])
def test_the_question_stays_in_every_tokenizer(tokenizer: PreTrainedTokenizerBase, length: int) -> None:
    full = one(TASKS["squad"], asked(), tokenizer, max_length=9999)
    shortest = one(TASKS["squad"], asked(context=""), tokenizer)
    room = max(length, len(shortest.prompt) + len(shortest.candidates[0]) + 2)
    example = one(TASKS["squad"], asked(), tokenizer, max_length=room)
    assert example.candidates == full.candidates
    assert len(example.prompt) == min(len(full.prompt), room - len(full.candidates[0]))
    kept, whole = text_of(tokenizer, example.prompt).lower(), text_of(tokenizer, full.prompt).lower()
    before, after = whole.index("the mill was"), whole.rindex("question")
    # A token that template and passage share, such as a space, may go with the passage.
    assert kept.startswith(whole[:before].rstrip())
    assert kept.endswith(whole[after:])


@given(context=safe, question=safe, max_length=st.integers(8, 90))
def test_only_the_passage_is_ever_cut(context: str, question: str, max_length: int) -> None:
    row = asked(context=context, question=question)
    head = [1, *(4 + b for b in b"Title: Mill\nContext: ")]
    tail = [4 + b for b in f"\nQuestion: {question.strip()}\nAnswer:".encode()]
    room = max_length - len(" 1712\n")
    if len(head) + len(tail) > room:
        with pytest.raises(MezoError, match=r"^data\.jsonl:3: .*; raise max_length"):
            one(TASKS["squad"], row, BYTES, max_length=max_length)
        return
    prompt = list(one(TASKS["squad"], row, BYTES, max_length=max_length).prompt)
    passage = [4 + b for b in context.encode()]
    kept = passage[max(0, len(passage) - (room - len(head) - len(tail))) :]
    assert prompt == head + kept + tail


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_what_metrics_and_rewards_need_comes_along(kind: Any) -> None:
    text = TextExample(
        "q", (" great", " terrible"), 1, tail=f" {MASK}", references=("x",), answers=(0, 1), group=7
    )
    task = Given(text=text)
    row = Row({"q": 1, "id": 5}, "data", 0)
    example = one(task, row, WORDS, kind)
    assert (example.references, example.answers, example.group) == (("x",), (0, 1), 7)
    assert example.fields == {"q": 1, "id": 5}
    assert example == one(task, Row({"other": 2}, "data", 0), WORDS, kind)
    assert len({example, one(task, row, WORDS, kind)}) == 1


@dataclass(frozen=True, kw_only=True)
class Given(Task):
    """Every row is the same example."""

    text: TextExample
    name: str = "given"
    fields: tuple[str, ...] = ()

    def label(self, row: Row) -> None:
        return None

    def causal(self, row: Row) -> TextExample:
        return self.text

    def masked(self, row: Row) -> TextExample:
        return self.text
