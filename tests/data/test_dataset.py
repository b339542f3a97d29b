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
from mezo.events import MezoWarning
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
        MeZODataset(path, task="prompt-completion")


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
        ({"split_sizes": (1, 12, 8)}, "expected more than 20 examples, to hold out that many .*, found 20"),
    ],
)
def test_impossible_samples(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MezoError, match=message):
        MeZODataset(REVIEWS, task="sst2", **options)


def test_a_class_with_fewer_examples_gives_all_with_one_warning() -> None:
    rows = [*REVIEWS, *({"sentence": f"more {i}", "label": 1} for i in range(5))]
    with pytest.warns(
        MezoWarning, match=r"expected 12 .* found only 10 of class 0 \(terrible\): all"
    ) as caught:
        labels = [row["label"] for row in MeZODataset(rows, task="sst2", shots_per_class=12)]
    assert (labels.count(0), labels.count(1), len(caught)) == (10, 12, 1)


def test_a_class_without_examples_is_an_error() -> None:
    with pytest.raises(MezoError, match=r"found none of class 1 \(great\)"):
        MeZODataset(REVIEWS[::2], task="sst2", shots_per_class=2)


def sentences(source: Any, split: str, sizes: tuple[int, int, int], **options: Any) -> list[str]:
    dataset = MeZODataset(source, task="sst2", split=split, split_sizes=sizes, **options)
    return [row["sentence"] for row in dataset]


@given(
    sizes=st.tuples(st.integers(1, 30), st.integers(1, 10), st.integers(1, 9)),
    seed=st.integers(0, 2**64 - 1),
)
def test_a_list_is_split_in_three_by_seed(sizes: tuple[int, int, int], seed: int) -> None:
    train, dev, test = (sentences(REVIEWS, s, sizes, seed=seed) for s in ("train", "dev", "test"))
    assert (len(dev), len(test)) == sizes[1:]
    assert len(train) == min(sizes[0], 20 - len(dev) - len(test))
    assert len({*train, *dev, *test}) == len(train) + len(dev) + len(test)
    assert train == sentences(REVIEWS, "train", sizes, seed=seed)


def test_splits_of_different_seeds_differ() -> None:
    assert len({tuple(sentences(REVIEWS, "train", (5, 5, 5), seed=seed)) for seed in range(10)}) == 10


def test_of_data_in_splits_test_comes_from_its_own() -> None:
    held = [{"sentence": f"held {i}", "label": 0} for i in range(6)]
    for source in ({"train": REVIEWS, "test": held}, {"train": REVIEWS, "dev": held}):
        train, dev, test = (sentences(source, s, (99, 8, 4)) for s in ("train", "validation", "test"))
        assert set(train) | set(dev) == {row["sentence"] for row in REVIEWS}
        assert (len(train), len(dev), len(test)) == (12, 8, 4)
        assert set(test) < {row["sentence"] for row in held}
        assert len(sentences(source, "test", (99, 8, 400))) == 6


def test_shots_are_drawn_from_all_that_is_not_held_out() -> None:
    dev = sentences(REVIEWS, "validation", (1, 4, 4))
    train = sentences(REVIEWS, "train", (1, 4, 4), shots_per_class=3)
    assert len(train) == 6
    assert not set(train) & set(dev)


def test_rows_a_task_skips_are_counted() -> None:
    rows = [{"premise": "a", "hypothesis": "b", "label": label} for label in (0, -1, 2, -1)]
    with pytest.warns(MezoWarning, match="data: 2 of 4 examples left out: no gold label"):
        assert [row["label"] for row in MeZODataset(rows, task="snli")] == [0, 2]
    with pytest.raises(MezoError, match="data: expected examples to use, found 2 with no gold label"):
        MeZODataset(rows[1::2], task="snli")


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
