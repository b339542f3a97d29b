"""In-context learning: balanced demonstrations, whole ones, as many as fit."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.baselines import toy
from tests.toys import byte_tokenizer

from mezo.api import evaluate
from mezo.data import MeZODataset
from mezo.data.demonstrations import SEPARATOR, demonstrate, draw
from mezo.errors import MezoError

TOKENIZER = byte_tokenizer(words=toy.WORDS)
TRAIN = MeZODataset([{"sentence": f"film {n}", "label": int(n % 5 == 0)} for n in range(30)], task="sst2")
ASKED = MeZODataset(
    [{"sentence": "so" + "o" * n, "label": n % 2} for n in range(20)], task="sst2", split="validation"
)
UNLIMITED = 10_000


def text_of(tokens: tuple[int, ...]) -> str:
    return str(TOKENIZER.decode(list(tokens), skip_special_tokens=True))


def test_the_prompt_is_the_demonstrations_and_then_itself() -> None:
    shown = draw(TRAIN, 4, seed=0)
    found = demonstrate(ASKED, shown, TOKENIZER, "causal", UNLIMITED)
    assert text_of(found.examples[0].prompt) == SEPARATOR.join([*shown, "so It was"])
    assert all(text.startswith("film ") and text.endswith(toy.WORDS) for text in shown)
    assert found.fitted == (4,) * 20
    assert found.describe(4) == "4 demonstrations before every prompt"


@given(st.integers(1, 12), st.integers(0, 2**64 - 1))
def test_classes_take_turns_and_fewer_shots_begin_more(shots: int, seed: int) -> None:
    shown = draw(TRAIN, shots, seed)
    assert len(set(shown)) == shots
    assert abs(sum(text.endswith("great") for text in shown) - shots / 2) <= 0.5
    assert draw(TRAIN, 12, seed)[:shots] == shown


def test_another_seed_draws_others() -> None:
    assert draw(TRAIN, 4, seed=0) != draw(TRAIN, 4, seed=1)


def test_a_class_that_runs_out_leaves_the_turns_to_the_others() -> None:
    shown = draw(TRAIN, 20, seed=0)
    assert sum(text.endswith("great") for text in shown) == 6  # all there are


@given(st.integers(60, 300))
def test_as_many_whole_demonstrations_as_fit(room: int) -> None:
    shown = draw(TRAIN, 8, seed=3)
    found = demonstrate(ASKED, shown, TOKENIZER, "causal", room)
    bare = demonstrate(ASKED, [], TOKENIZER, "causal", UNLIMITED)
    for example, alone, fitted in zip(found.examples, bare.examples, found.fitted, strict=True):
        head = "".join(text + SEPARATOR for text in shown[:fitted])
        assert text_of(example.prompt) == head + text_of(alone.prompt)
        longest = max(map(len, example.candidates))
        assert len(example.prompt) + longest <= room
        if fitted < 8:  # with the byte tokenizer, words are all that is not a byte a token
            more = len(TOKENIZER(shown[fitted] + SEPARATOR, add_special_tokens=False)["input_ids"])
            assert len(example.prompt) + longest + more > room


def test_a_prompt_that_does_not_fit_alone_is_cut_as_without_demonstrations() -> None:
    long = MeZODataset([{"sentence": "x" * 50, "label": 1}], task="sst2")
    found = demonstrate(long, draw(TRAIN, 2, seed=0), TOKENIZER, "causal", 20)
    assert found.fitted == (0,)
    assert found.examples.examples == long.encode(TOKENIZER, "causal", 20).examples


def test_the_row_goes_along_for_metrics() -> None:
    found = demonstrate(ASKED, draw(TRAIN, 2, seed=0), TOKENIZER, "causal", UNLIMITED)
    assert [e.fields for e in found.examples] == list(ASKED)


def test_more_shots_than_examples_are_refused() -> None:
    with pytest.raises(MezoError, match=r"shots from 1 to 30.*found 31"):
        draw(TRAIN, 31, seed=0)


def test_a_masked_model_is_refused() -> None:
    with pytest.raises(MezoError, match=r"found a masked language model: use a causal one, or --shots 0"):
        demonstrate(ASKED, ["x"], TOKENIZER, "masked", UNLIMITED)


def test_evaluate_shows_them(tmp_path: Path) -> None:
    base, data = toy.base(tmp_path / "base"), toy.reviews(tmp_path / "reviews")
    config = toy.config(base, data, max_length=96)
    plain, shown = evaluate(config), evaluate(config, shots=2)
    assert (plain["shots"], plain["shots_shown"]) == (0, 0.0)
    assert (shown["shots"], shown["shots_shown"]) == (2, 2.0)
    assert shown["loss"] != plain["loss"]
    assert 0 < evaluate(config, shots=8)["shots_shown"] < 8
    with pytest.raises(MezoError, match=r"drawn from the split 'train'"):
        evaluate(config, split="train", shots=2)
    with pytest.raises(MezoError, match=r"need a training split of their own, found one file"):
        evaluate(toy.config(base, data / "train.jsonl"), shots=2)
