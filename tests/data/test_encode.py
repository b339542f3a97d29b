"""Tokens: prompt + candidate are those of the joined text, on three kinds of tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.shared import shared
from tests.toys import byte_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mezo.data import MeZODataset, encode
from mezo.errors import MezoError
from mezo.events import MezoWarning
from mezo.scoring import Example, pose
from mezo.tasks import MASK, TASKS, Row, Task, TextExample
from mezo.tasks.sst2 import SST2

REVIEW = TASKS["sst2"]
COMPLETION = replace(TASKS["prompt-completion"], append_eos=False, parse_special=True)
BYTES = byte_tokenizer()
WORDS = byte_tokenizer(words=(" great", " terrible"))


def review(sentence: str, label: int = 1) -> Row:
    return Row({"sentence": sentence, "label": label}, "data.jsonl", 3, is_line=True)


def pair(prompt: str, completion: str) -> Row:
    return Row({"prompt": prompt, "completion": completion}, "data.jsonl", 3, is_line=True)


def one(
    task: Any, row: Row, tokenizer: PreTrainedTokenizerBase, kind: Any = "causal", max_length: int = 512
) -> Example:
    (example,) = encode(task, [row], tokenizer, kind, max_length)
    return example


def text_of(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens)))


@pytest.fixture(scope="module")
def sentencepiece() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(shared("models/stories260k"))


@pytest.fixture(scope="module")
def wordpiece() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(shared("models/bert-tiny-mlm"))


@pytest.fixture(params=["bytes", "words", "no-bos", "sentencepiece", "wordpiece"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    toys = {"bytes": BYTES, "words": WORDS, "no-bos": byte_tokenizer(bos=False)}
    return toys.get(request.param) or request.getfixturevalue(request.param)


def test_causal_tokens_are_those_of_the_joined_text(tokenizer: PreTrainedTokenizerBase) -> None:
    example = one(REVIEW, review("a fine film ."), tokenizer)
    before = {"<s>": 1, "[CLS]": 1}.get(tokenizer.convert_ids_to_tokens(tokenizer("a").input_ids)[0], 0)
    assert list(example.prompt[:before]) == tokenizer("a").input_ids[:before]
    for candidate, word in zip(example.candidates, (" terrible", " great"), strict=True):
        joined = tokenizer("a fine film . It was" + word, add_special_tokens=False).input_ids
        assert list(example.prompt[before:] + candidate) == joined
    assert example.answer == 1
    assert example.mask_position is None


def test_causal_by_hand_in_bytes() -> None:
    example = one(REVIEW, review("ab", 0), BYTES)
    assert example.prompt == (1, *(4 + b for b in b"ab It was"))
    assert example.candidates == (tuple(4 + b for b in b" terrible"), tuple(4 + b for b in b" great"))
    assert example.answer == 0


def test_a_prompt_that_begins_with_bos_gets_no_second_one() -> None:
    def tokens(prompt: str, completion: str, max_length: int = 512) -> tuple[Any, ...]:
        example = one(COMPLETION, pair(prompt, completion), BYTES, max_length=max_length)
        return example.prompt, example.candidates

    assert tokens("<s>ab", " c") == tokens("ab", " c") == ((1, 101, 102), ((36, 103),))
    assert tokens("<s>ab ", "c") == tokens("ab ", "c")
    assert tokens("<s>" + "ab" * 40, " c", 10) == tokens("ab" * 40, " c", 10)
    assert one(COMPLETION, pair("a<s>b", " c"), BYTES).prompt[:3] == (1, 4 + ord("a"), 1)


def test_a_masked_prompt_that_begins_with_bos_gets_no_second_one() -> None:
    twice, once = (
        one(replace(REVIEW, parse_special=True), review(text), WORDS, "masked") for text in ("<s>ab", "ab")
    )
    assert (twice.prompt, twice.mask_position) == (once.prompt, once.mask_position)


def test_causal_by_hand_in_words() -> None:
    example = one(REVIEW, review("ab"), WORDS)
    great, terrible = WORDS(" great", add_special_tokens=False).input_ids, WORDS.vocab_size - 1
    assert example.candidates == ((terrible,), tuple(great))
    assert len(great) == 1


def test_causal_in_sentencepiece_has_no_stray_space(sentencepiece: PreTrainedTokenizerBase) -> None:
    example = one(REVIEW, review("a cat"), sentencepiece)
    pieces = [sentencepiece.convert_ids_to_tokens(list(c)) for c in example.candidates]
    assert [piece[0] for piece in pieces] == ["▁t", "▁g"]
    assert ["".join(piece) for piece in pieces] == ["▁terrible", "▁great"]
    assert example.prompt[0] == sentencepiece.bos_token_id
    assert example.prompt.count(sentencepiece.bos_token_id) == 1


def test_wordpiece_leaves_no_separator_between_prompt_and_candidate(
    wordpiece: PreTrainedTokenizerBase,
) -> None:
    example = one(REVIEW, review("a cat"), wordpiece)
    assert wordpiece.convert_ids_to_tokens(list(example.prompt)) == ["[CLS]", "a", "cat", "it", "was"]


@pytest.mark.parametrize(("prompt", "completion"), [("One day ", "the cat"), ("One day  ", " the cat")])
def test_a_space_at_the_border_goes_to_the_candidate(
    sentencepiece: PreTrainedTokenizerBase, prompt: str, completion: str
) -> None:
    example = one(COMPLETION, pair(prompt, completion), sentencepiece)
    joined = sentencepiece(prompt + completion).input_ids
    assert list(example.prompt + example.candidates[0]) == joined


def test_a_border_inside_a_token_is_kept_by_tokenising_apart() -> None:
    tokenizer = byte_tokenizer(words=(" great",))
    example = one(COMPLETION, pair("so gr", "eat"), tokenizer)
    assert list(example.prompt) == tokenizer("so gr").input_ids
    assert example.candidates == (tuple(4 + b for b in b"eat"),)


def test_a_border_inside_a_sentencepiece_token(sentencepiece: PreTrainedTokenizerBase) -> None:
    # "th" + "ere": joined, one token "▁there"; apart, nothing may be lost or gained.
    example = one(COMPLETION, pair("over th", "ere"), sentencepiece)
    assert list(example.prompt) == sentencepiece("over th").input_ids
    pieces = sentencepiece.convert_ids_to_tokens(list(example.candidates[0]))
    assert "".join(pieces) == "ere"


safe = st.text(st.characters(codec="utf-8", exclude_characters=f"<{MASK}"), max_size=12)


@given(prompt=safe, completion=safe.filter(bool))
def test_in_bytes_nothing_is_lost_at_any_border(prompt: str, completion: str) -> None:
    example = one(COMPLETION, pair(prompt, completion), BYTES)
    assert [t - 4 for t in example.prompt[1:]] == list(prompt.encode())
    assert [t - 4 for t in example.candidates[0]] == list(completion.encode())


@given(prompt=safe, completion=safe.filter(bool), max_length=st.integers(1, 40))
def test_a_prompt_too_long_loses_its_beginning_but_not_bos(
    prompt: str, completion: str, max_length: int
) -> None:
    length = len(completion.encode())
    row = pair(prompt, completion)
    if length + 1 > max_length:
        with pytest.raises(
            MezoError, match=rf"^data\.jsonl:3: a candidate of {length} tokens leaves no room"
        ):
            one(COMPLETION, row, BYTES, max_length=max_length)
        return
    example, full = one(COMPLETION, row, BYTES, max_length=max_length), one(COMPLETION, row, BYTES)
    assert example.candidates == full.candidates
    assert example.prompt[0] == 1
    kept = example.prompt[1:]
    assert kept == full.prompt[len(full.prompt) - len(kept) :]
    assert len(example.prompt) == min(len(full.prompt), max_length - length)


def test_every_candidate_leaves_the_same_room() -> None:
    example = one(REVIEW, review("x" * 50), BYTES, max_length=30)
    assert max(len(example.prompt + c) for c in example.candidates) == 30
    assert text_of(BYTES, example.prompt) == "<s>" + "x" * 13 + " It was"


def test_without_bos_there_must_be_a_prompt() -> None:
    with pytest.raises(MezoError, match=r"^data\.jsonl:3: expected a prompt, found an empty one"):
        one(COMPLETION, pair("", "x"), byte_tokenizer(bos=False))
    assert one(COMPLETION, pair("", "x"), BYTES).prompt == (1,)


def test_without_bos_a_prompt_of_white_space_stays_whole() -> None:
    tokenizer = byte_tokenizer(bos=False, words=(" yes",))
    example = one(COMPLETION, pair(" ", "yes"), tokenizer)
    assert (example.prompt, example.candidates) == ((4 + ord(" "),), (tuple(4 + b for b in b"yes"),))


def test_without_bos_one_token_of_the_prompt_must_stay() -> None:
    tokenizer = byte_tokenizer(bos=False)
    assert one(COMPLETION, pair("abc", "xy"), tokenizer, max_length=3).prompt == (4 + ord("c"),)
    with pytest.raises(MezoError, match="leaves no room for a prompt in max_length=2"):
        one(COMPLETION, pair("abc", "xy"), tokenizer, max_length=2)


def test_a_candidate_without_tokens_is_an_error(wordpiece: PreTrainedTokenizerBase) -> None:
    with pytest.raises(
        MezoError, match=r"^data\.jsonl:3: expected a candidate with at least one token, found ' '"
    ):
        one(COMPLETION, pair("a", " "), wordpiece)


def test_masked_on_wordpiece(wordpiece: PreTrainedTokenizerBase) -> None:
    example = one(REVIEW, review("A fine film."), wordpiece, "masked")
    text = "[CLS] a fine film . it was [MASK] . [SEP]"
    assert wordpiece.convert_ids_to_tokens(list(example.prompt)) == text.split()
    assert example.mask_position == 7
    assert [wordpiece.convert_ids_to_tokens(list(c)) for c in example.candidates] == [["terrible"], ["great"]]


def test_masked_in_bytes() -> None:
    example = one(REVIEW, review("ab"), WORDS, "masked")
    assert text_of(WORDS, example.prompt) == "<s>ab It was <mask>."
    assert example.mask_position is not None
    assert example.prompt[example.mask_position] == WORDS.mask_token_id
    assert [text_of(WORDS, c) for c in example.candidates] == [" terrible", " great"]


def test_a_mask_that_the_sentence_spells_is_not_the_templates() -> None:
    example = one(replace(REVIEW, parse_special=True), review("a <mask> b"), WORDS, "masked")
    masks = [i for i, t in enumerate(example.prompt) if t == WORDS.mask_token_id]
    assert len(masks) == 2
    assert example.mask_position == masks[1]


def test_control_tokens_in_the_data_are_text_unless_asked_for() -> None:
    example = one(COMPLETION, pair("a</s>b", " <s>c"), BYTES)
    assert 2 in example.prompt
    assert 1 in example.candidates[0]
    plain = replace(COMPLETION, parse_special=False)
    example = one(plain, pair("a</s>b", " <s>c"), BYTES)
    assert example.prompt == (1, *(4 + b for b in b"a</s>b"))
    assert example.candidates == (tuple(4 + b for b in b" <s>c"),)
    assert example.references == ("<s>c",)
    assert example.fields == {"prompt": "a</s>b", "completion": " <s>c"}
    masked = one(REVIEW, review("a <mask> b"), WORDS, "masked")
    assert sum(t == WORDS.mask_token_id for t in masked.prompt) == 1


def test_rows_that_write_out_control_tokens_are_counted() -> None:
    rows = [pair("a", "b"), pair("<s>a", "b")]
    with pytest.warns(
        MezoWarning, match=r"1 of 2 rows write out control tokens such as '<s>', .* --parse-special"
    ):
        encode(TASKS["prompt-completion"], rows, BYTES, "causal", 50)


def test_an_answer_ends_with_the_end_token_once() -> None:
    ended = TASKS["prompt-completion"]
    assert one(ended, pair("a", "b"), BYTES).candidates == ((4 + ord("b"), 2),)
    assert one(replace(ended, parse_special=True), pair("a", "b</s>"), BYTES).candidates == (
        (4 + ord("b"), 2),
    )
    assert one(REVIEW, review("a"), BYTES).candidates[0][-1] != 2


def test_a_completion_on_a_masked_model_has_a_mask_for_each_of_its_tokens() -> None:
    example = one(TASKS["prompt-completion"], pair("what?", " abc"), WORDS, "masked")
    assert text_of(WORDS, example.prompt) == "<s>what? <mask><mask><mask><mask>"
    assert example.mask_position == 1 + len("what? ")
    assert example.candidates == (tuple(4 + b for b in b" abc"),)
    posed = pose([example])
    assert posed.query_position.tolist() == [7, 8, 9, 10]
    assert posed.query_token.tolist() == list(example.candidates[0])
    cut = one(TASKS["prompt-completion"], pair("q" * 50, " abc"), WORDS, "masked", 20)
    assert len(cut.prompt) == 20
    assert sum(t == WORDS.mask_token_id for t in cut.prompt) == 4


def test_a_text_is_learned_whole_and_cut_at_its_end() -> None:
    text = TASKS["text"]
    row = Row({"text": "abcdef"}, "data.jsonl", 3, is_line=True)
    example = one(text, row, BYTES)
    assert (example.prompt, example.candidates) == ((1,), ((*(4 + b for b in b"abcdef"), 2),))
    example = one(text, row, byte_tokenizer(bos=False))
    assert example.prompt == (4 + ord("a"),)
    assert example.candidates[0][:5] == tuple(4 + b for b in b"bcdef")
    assert one(text, row, BYTES, max_length=4).candidates == (tuple(4 + b for b in b"abc"),)


def test_a_mask_cut_off_with_the_sentence_is_not_counted() -> None:
    example = one(REVIEW, review("q" * 40 + " <mask>"), WORDS, "masked", 20)
    assert text_of(WORDS, example.prompt) == "<s>" + "q" * 9 + " It was <mask>."
    assert example.mask_position == 18


@given(sentence=safe.map(str.strip), max_length=st.integers(12, 40))
def test_masked_cuts_the_end_of_the_sentence_and_nothing_else(sentence: str, max_length: int) -> None:
    example = one(REVIEW, review(sentence), WORDS, "masked", max_length)
    full = one(REVIEW, review(sentence), WORDS, "masked")
    template = (*(4 + b for b in b" It was "), WORDS.mask_token_id, 4 + ord("."))
    assert len(example.prompt) <= max_length
    assert example.prompt[-len(template) :] == template
    assert example.mask_position == len(example.prompt) - 2
    kept = example.prompt[: -len(template)]
    assert kept == full.prompt[: len(kept)]
    # one token a byte: the longest beginning, to a character and without white space at its end, that fits
    lengths = [len(sentence[:n].rstrip().encode()) for n in range(len(sentence) + 1)]
    assert len(kept) == 1 + max(n for n in lengths if 1 + n + len(template) <= max_length)


def test_masked_keeps_as_much_of_the_sentence_as_fits() -> None:
    example = one(REVIEW, review("abcdefgh" * 9), WORDS, "masked", 20)
    assert text_of(WORDS, example.prompt) == "<s>abcdefgha It was <mask>."
    assert len(example.prompt) == 20


def test_a_template_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(
        MezoError, match=r"^data\.jsonl:3: the template alone has 11 tokens, more than max_length=8"
    ):
        one(REVIEW, review("abc"), WORDS, "masked", 8)


def test_a_label_word_of_many_tokens_is_named_with_its_pieces() -> None:
    with pytest.raises(
        MezoError, match=r"one token of this tokenizer, found ' terrible', which is 9: 'Ġ', 't', "
    ):
        one(REVIEW, review("abc", 0), byte_tokenizer(words=(" great",)), "masked")


def test_a_label_word_the_tokenizer_does_not_know(wordpiece: PreTrainedTokenizerBase) -> None:
    with pytest.raises(MezoError, match=r"found ' ☃', which is 1: '\[UNK\]'; choose another word"):
        one(SST2(label_words=(" ☃", " great")), review("abc"), wordpiece, "masked")


def test_a_tokenizer_without_a_mask(sentencepiece: PreTrainedTokenizerBase) -> None:
    with pytest.raises(MezoError, match="expected a tokenizer with a mask token, found none"):
        one(REVIEW, review("abc"), sentencepiece, "masked")


@dataclass(frozen=True, kw_only=True)
class Choice(Task):
    """The least a task with its own candidates in every row takes; its mask comes first."""

    name: str = "choice"
    fields: tuple[str, ...] = ("question", "choices", "answer")

    def label(self, row: Row) -> None:
        return None

    def causal(self, row: Row) -> TextExample:
        choices = tuple(f" {choice}" for choice in row.value("choices"))
        return TextExample(
            row.text("question"), choices, row.label("answer", [(c,) for c in choices]), tail=" so"
        )

    def masked(self, row: Row) -> TextExample:
        words = tuple(f" {choice}" for choice in row.value("choices"))
        return TextExample(
            row.text("question"),
            words,
            row.label("answer", [(w,) for w in words]),
            head=f"{MASK}: ",
            tail="?",
        )


def test_every_row_may_bring_its_own_candidates() -> None:
    rows = [
        Row({"question": "a", "choices": ["it fell", "we"], "answer": 1}, "data", 0),
        Row({"question": "bc", "choices": ["x", "yy", "zzz"], "answer": 0}, "data", 1),
    ]
    first, second = encode(Choice(), rows, BYTES, "causal", 50)
    assert [text_of(BYTES, c) for c in first.candidates] == [" it fell", " we"]
    assert [text_of(BYTES, c) for c in second.candidates] == [" x", " yy", " zzz"]
    assert (text_of(BYTES, second.prompt), first.answer, second.answer) == ("<s>bc so", 1, 0)
    with pytest.raises(MezoError, match=r"data\[0\]: expected field 'answer' to be one of 0 \( x\); found 1"):
        encode(
            Choice(), [Row({"question": "", "choices": ["x"], "answer": 1}, "data", 0)], BYTES, "causal", 50
        )


def test_a_mask_may_come_before_the_text() -> None:
    row = Row({"question": "<mask> " + "q" * 40, "choices": ["great", "terrible"], "answer": 0}, "data", 0)
    example = one(Choice(parse_special=True), row, WORDS, "masked", 20)
    assert text_of(WORDS, example.prompt) == "<s><mask>: <mask> " + "q" * 13 + "?"
    assert example.mask_position == 1


def test_an_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(MezoError, match=r"unknown model kind 'seq2seq'\. Choices: causal, masked"):
        one(REVIEW, review("abc"), BYTES, "seq2seq")


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_many_rows_are_encoded_as_each_alone(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mezo.data.encoding._CHUNK", 7)
    rows = [review("word " * (i % 13) + str(i), i % 2) for i in range(30)]
    assert encode(REVIEW, rows, WORDS, kind, 40) == [one(REVIEW, row, WORDS, kind, 40) for row in rows]


@pytest.mark.parametrize(("model", "kind"), [("stories260k", "causal"), ("bert-tiny-mlm", "masked")])
def test_real_rows_on_real_tokenizers(model: str, kind: Any) -> None:
    folder: Path = shared("tasks/sst2/validation.jsonl").parent
    tokenizer = AutoTokenizer.from_pretrained(shared(f"models/{model}"))
    dataset = MeZODataset(folder, task="sst2", split="validation")
    encoded = dataset.encode(tokenizer, kind, 48)
    assert len(encoded) == len(dataset)
    for example, raw in zip(encoded, dataset, strict=True):
        assert len(example.prompt) + (max(map(len, example.candidates)) if kind == "causal" else 0) <= 48
        assert example.answer == raw["label"]
        if example.mask_position is not None:
            assert example.prompt[example.mask_position] == tokenizer.mask_token_id
