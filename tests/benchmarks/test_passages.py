"""Batches whose rows begin alike."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.passages import WORKLOADS, distinct_tokens, examples_for
from benchmarks.text import stream
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import tiny
from tests.toys import byte_tokenizer

from mezo.errors import MezoError
from mezo.models.load import LoadedModel
from mezo.scoring import pose

PASSAGE = "A long passage. " * 5
ROWS: dict[str, list[dict[str, Any]]] = {
    "boolq": [{"passage": PASSAGE, "question": "is it long", "label": True}] * 2,
    "multirc": [
        {"paragraph": f"{PASSAGE}{i % 2}", "question": f"which {i}", "answer": "this", "label": 0}
        for i in range(4)
    ],
    "record": [{"passage": PASSAGE, "query": "so @placeholder said", "entities": ["Ada", "Grace", "Alan"]}],
    "copa": [
        {"premise": "It rained.", "choice1": "We left.", "choice2": "It stopped.", "question": "effect"}
    ],
}


def text_of(loaded: LoadedModel, tokens: tuple[int, ...]) -> str:
    return "".join(loaded.tokenizer.batch_decode([[t] for t in tokens]))


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return LoadedModel(tiny("llama"), byte_tokenizer(), "causal", "toy")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    for name, rows in ROWS.items():
        (folder / name).mkdir()
        (folder / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@given(st.lists(st.lists(st.integers(0, 2), max_size=6).map(tuple), max_size=8))
def test_distinct_tokens_counts_histories(rows: list[tuple[int, ...]]) -> None:
    assert distinct_tokens(rows) == len({row[: i + 1] for row in rows for i in range(len(row))})


@pytest.mark.parametrize("name", ["boolq", "multirc", "record", "copa"])
def test_text_of_the_paper_s_template(name: str, loaded: LoadedModel, data: Path) -> None:
    batch, made_of = examples_for(name, loaded, data=str(data), batch_size=4, max_length=512, seed=0)
    assert made_of == f"4 of {name}"
    texts = [text_of(loaded, batch[0].prompt[1:] + candidate) for candidate in batch[0].candidates]
    assert (
        texts
        == {
            "boolq": [f"{PASSAGE} is it long?\n{answer}" for answer in ("Yes, it is.", "No, it is not.")],
            "multirc": [
                f'{PASSAGE}0\nQuestion: which 0\nI found this answer "this". Is that correct? Yes or No?\n{answer}'
                for answer in ("Yes, it is.", "No, it is not.")
            ],
            "record": [f"{PASSAGE}\n- so {name} said" for name in ROWS["record"][0]["entities"]],
            "copa": ["It rained so we left.", "It rained so it stopped."],
        }[name]
    )


def test_questions_on_one_passage_stand_together(loaded: LoadedModel, data: Path) -> None:
    batch, _ = examples_for("multirc", loaded, data=str(data), batch_size=2, max_length=512, seed=0)
    start = len(PASSAGE) + 2
    assert batch[0].prompt[:start] == batch[1].prompt[:start]


def test_a_long_passage_loses_its_end(loaded: LoadedModel, data: Path) -> None:
    batch, _ = examples_for("boolq", loaded, data=str(data), batch_size=1, max_length=64, seed=0)
    assert max(len(batch[0].prompt + c) for c in batch[0].candidates) == 64
    text = text_of(loaded, batch[0].prompt[1:])
    assert text.startswith("A long passage.")
    assert text.endswith(" is it long?\n")


def test_demonstrations_are_shared(loaded: LoadedModel) -> None:
    batch, made_of = examples_for("icl", loaded, data=None, batch_size=4, max_length=512, seed=0)
    assert made_of == "4 of the packaged reviews"
    prompts = [example.prompt for example in batch]
    shared = next(i for i, tokens in enumerate(zip(*prompts, strict=False)) if len(set(tokens)) > 1)
    text = text_of(loaded, batch[0].prompt[1:shared])
    assert text.count(" It was ") == 16
    assert {len(e.candidates) for e in batch} == {2}


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_random_rows_share_what_text_would(name: str, loaded: LoadedModel) -> None:
    blind = LoadedModel(loaded.model, None, "causal", "toy")  # type: ignore[arg-type]
    batch, made_of = examples_for(name, blind, data=None, batch_size=3, max_length=512, seed=0)
    assert made_of == "3 of random tokens"
    rows = pose(batch).rows
    assert distinct_tokens(rows) < 0.9 * sum(map(len, rows))


def test_wrong_fields_are_named(loaded: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq" / "train.jsonl").write_text('{"passage": "a", "query": "b"}\n')
    with pytest.raises(MezoError, match="expected the fields of boolq, found no 'question'"):
        examples_for("boolq", loaded, data=str(tmp_path), batch_size=1, max_length=64, seed=0)


def test_text_needs_a_tokenizer(loaded: LoadedModel) -> None:
    blind = LoadedModel(loaded.model, None, "causal", "toy")  # type: ignore[arg-type]
    with pytest.raises(MezoError, match="toy has no tokenizer, so no text; give --batch synthetic"):
        stream("sst2", blind)
