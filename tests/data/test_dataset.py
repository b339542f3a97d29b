"""MeZODataset: read, checked, sampled."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.shared import shared
from tests.toys import byte_tokenizer

from mezo.data import MeZODataset
from mezo.errors import MezoError
from mezo.tasks import TASKS

REVIEWS = [{"sentence": f"review {i}", "label": i % 2} for i in range(20)]


def test_it_is_a_sequence_of_raw_examples() -> None:
    dataset = MeZODataset(REVIEWS, task="sst2")
    assert len(dataset) == 20
    assert list(dataset) == REVIEWS
    assert dataset[3] == REVIEWS[3]


def test_a_task_may_be_given_itself() -> None:
    assert MeZODataset(REVIEWS, task=TASKS["sst2"]).task is MeZODataset(REVIEWS, task="sst2").task


def test_an_unknown_task_names_the_near_ones() -> None:
    with pytest.raises(MezoError, match="unknown task 'sst-2'; did you mean 'sst2'"):
        MeZODataset(REVIEWS, task="sst-2")


def test_mistakes_are_found_before_anything_is_encoded(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, [*REVIEWS, {"sentence": "x", "label": 2}])))
    with pytest.raises(MezoError, match=r"train\.jsonl:21: expected field 'label' to be one of"):
        MeZODataset(path, task="sst2", max_examples=1)
    with pytest.raises(
        MezoError, match=r"train\.jsonl:1: expected a field 'prompt', found fields 'sentence', 'l"
    ):
        MeZODataset(path)


@given(size=st.integers(1, 30), seed=st.integers(0, 2**64 - 1))
def test_a_subset_depends_on_the_seed_alone(size: int, seed: int) -> None:
    first, second = (MeZODataset(REVIEWS, task="sst2", max_examples=size, seed=seed) for _ in range(2))
    assert list(first) == list(second)
    assert len(first) == min(size, 20)


@given(k=st.integers(1, 10), seed=st.integers(0, 2**64 - 1))
def test_k_shot_is_k_of_every_class(k: int, seed: int) -> None:
    labels = [row["label"] for row in MeZODataset(REVIEWS, task="sst2", shots_per_class=k, seed=seed)]
    assert (labels.count(0), labels.count(1)) == (k, k)


def test_subsets_of_different_seeds_differ() -> None:
    chosen = {
        tuple(row["sentence"] for row in MeZODataset(REVIEWS, task="sst2", max_examples=10, seed=seed))
        for seed in range(10)
    }
    assert len(chosen) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_examples": 0}, "expected max_examples to be 1 or more, found 0"),
        ({"shots_per_class": -1}, "expected shots_per_class to be 1 or more, found -1"),
        ({"max_examples": 1, "shots_per_class": 1}, "exclude each other"),
        ({"shots_per_class": 11}, r"expected 11 examples of every class, found 10 of class 0 \(terrible\)"),
    ],
)
def test_impossible_samples(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MezoError, match=message):
        MeZODataset(REVIEWS, task="sst2", **options)


def test_shots_need_classes() -> None:
    with pytest.raises(MezoError, match="needs classes, which task 'prompt-completion' does not have"):
        MeZODataset([{"prompt": "a", "completion": "b"}], shots_per_class=1)


def test_encode_keeps_the_order() -> None:
    tokenizer = byte_tokenizer()
    encoded = MeZODataset(REVIEWS, task="sst2").encode(tokenizer, "causal", 100)
    assert [tokenizer.decode(list(e.prompt)) for e in encoded] == [f"<s>review {i} It was" for i in range(20)]
    assert [e.answer for e in encoded] == [row["label"] for row in REVIEWS]


def test_the_splits_of_a_real_folder() -> None:
    folder = shared("tasks/sst2/train.jsonl").parent
    for split in ("train", "validation"):
        dataset = MeZODataset(folder, task="sst2", split=split)
        with (folder / f"{split}.jsonl").open(encoding="utf-8") as lines:
            assert list(dataset) == [json.loads(line) for line in lines]
