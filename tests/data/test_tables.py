"""CSV, TSV, Parquet, Arrow, saved data sets, globs, frames: each source gives the same rows."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from tests.toys import byte_tokenizer

from mezo.data import MeZODataset
from mezo.data.files import read_rows
from mezo.data.formats import FORMATS
from mezo.data.lazy import LAZY_FROM
from mezo.errors import MezoError

ROWS = [
    {"prompt": f"What, is\n{n}?", "completion": text}
    for n, text in enumerate(["007", "NA", "1.0", 'a "b"', ""])
]
ROWS[-1]["completion"] = "null"
FRAME = pd.DataFrame(ROWS)


def _jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")


WRITE: dict[str, Callable[[Path], Any]] = {
    ".jsonl": _jsonl,
    ".json": lambda path: path.write_text(json.dumps(ROWS)),
    ".csv": lambda path: FRAME.to_csv(path, index=False),
    ".tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    ".parquet": lambda path: FRAME.to_parquet(path),
    ".arrow": lambda path: _arrow(path),
}


def _arrow(path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(path.parent / "saved")
    next((path.parent / "saved").glob("*.arrow")).rename(path)


def test_every_format_is_tested() -> None:
    assert set(WRITE) | {".txt"} == set(FORMATS)


@pytest.mark.parametrize("suffix", WRITE)
def test_every_format_gives_the_rows_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    WRITE[suffix](path)
    assert [dict(row.fields) for row in read_rows(path)] == ROWS
    assert MeZODataset(path).task.name == "prompt-completion"


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_text_tables_may_be_gzipped_and_have_a_byte_order_mark(tmp_path: Path, suffix: str) -> None:
    WRITE[suffix](tmp_path / f"rows{suffix}")
    text = (tmp_path / f"rows{suffix}").read_bytes()
    (tmp_path / f"marked{suffix}").write_bytes(b"\xef\xbb\xbf" + text)
    (tmp_path / f"packed{suffix}.gz").write_bytes(gzip.compress(text))
    for name in (f"marked{suffix}", f"packed{suffix}.gz"):
        assert [dict(row.fields) for row in read_rows(tmp_path / name)] == ROWS


def test_paragraphs_of_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n one\ntwo  \n\n\nthree", encoding="utf-8")
    assert [(row.fields["text"], row.number) for row in read_rows(path)] == [(" one\ntwo  ", 2), ("three", 6)]
    assert MeZODataset(path).task.name == "text"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"prompt,completion\na,b\nc,d,e\n", r"not a readable table: .*Expected 2 fields in line 3, saw 3"),
        (b"prompt,prompt\na,b\n", r"expected each column once, found 'prompt' twice"),
        (b"\n\n", r"expected the names of the columns in the first line"),
        (b"", r"expected the names of the columns in the first line"),
        (b"prompt,completion\n", r"expected at least one example, found none"),
        (b"prompt,completion\n\xff\xfe,b\n", r"not a readable table: .*utf-8"),
        (b"pr\xffompt,completion\na,b\n", r"expected UTF-8"),
    ],
)
def test_broken_tables_are_one_line(
    tmp_path: Path, content: bytes, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(MezoError, match=said) as caught:
        read_rows(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_binary_tables_that_are_none(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(b"not a table at all")
    with pytest.raises(MezoError, match="not a readable table"):
        read_rows(path)


def test_saved_data_sets_have_their_splits(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": whole, "val": whole.select([0])}).save_to_disk(tmp_path / "two")
    assert list(MeZODataset(tmp_path / "one")) == list(MeZODataset(tmp_path / "two")) == ROWS
    assert list(MeZODataset(tmp_path / "two", split="validation")) == ROWS[:1]
    with pytest.raises(MezoError, match="expected the split 'test'"):
        MeZODataset(tmp_path / "two", split="test")
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(MezoError, match="not a readable saved data set"):
        MeZODataset(tmp_path / "one")


def test_globs_and_parts_of_a_split_are_joined_in_order(tmp_path: Path) -> None:
    for n, part in enumerate((ROWS[:2], ROWS[2:])):
        pd.DataFrame(part).to_parquet(tmp_path / f"train-{n:05}-of-00002.parquet")
    assert list(MeZODataset(tmp_path)) == ROWS
    assert list(MeZODataset(str(tmp_path / "train-*.parquet"))) == ROWS
    with pytest.raises(MezoError, match="no file has a name like this"):
        MeZODataset(str(tmp_path / "*.csv"))


def test_two_files_of_one_split_are_a_question(tmp_path: Path) -> None:
    WRITE[".jsonl"](tmp_path / "train.jsonl")
    WRITE[".csv"](tmp_path / "train.csv")
    with pytest.raises(MezoError, match=r"one file of the split 'train', found train\.csv, train\.jsonl"):
        MeZODataset(tmp_path)


def test_objects_of_other_libraries() -> None:
    whole = datasets.Dataset.from_list(ROWS)
    stream = whole.to_iterable_dataset()
    for source in (whole, FRAME, datasets.DatasetDict({"train": whole}), {"train": FRAME}):
        assert [dict(row) for row in MeZODataset(source)] == ROWS  # pyright: ignore[reportArgumentType]
    assert [dict(row) for row in MeZODataset(stream, max_examples=2)] == ROWS[:2]  # pyright: ignore[reportArgumentType]
    with pytest.raises(MezoError, match="a stream has no length"):
        MeZODataset(stream)  # pyright: ignore[reportArgumentType]
    missing = pd.DataFrame({"prompt": ["a"], "completion": [float("nan")]})
    data = MeZODataset(missing)  # pyright: ignore[reportArgumentType]
    with pytest.raises(MezoError, match=r"data\[0\]: expected text in field 'completion', found None"):
        data.encode(byte_tokenizer(), "causal", 50)


def test_class_labels_are_read_by_name_where_the_data_define_the_classes() -> None:
    label = datasets.ClassLabel(names=["negative", "positive"])
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)
    assert MeZODataset(data).task.label_words == (" negative", " positive")


def test_rows_of_a_large_table_stay_in_it() -> None:
    count = LAZY_FROM + 1
    table = datasets.Dataset.from_dict({"q": [f"q{n}" for n in range(count)], "answer": [" a"] * count})
    from mezo.tasks import RowOptions, task_for

    data = MeZODataset(table, task=task_for("auto", reading=RowOptions(columns={"question": "q"})))
    assert len(data) == count
    assert data[7]["question"] == "q7"
    encoded = data.encode(byte_tokenizer(), "causal", 60)
    whole = MeZODataset([dict(data[n]) for n in range(50)]).encode(byte_tokenizer(), "causal", 60)
    assert [encoded[n] for n in range(50)] == list(whole[:50])
    assert len(encoded.batch(3, 8, 0)) == 8
    subset = MeZODataset(table.rename_column("q", "question"), max_examples=LAZY_FROM)
    assert len({row["question"] for row in subset.rows[:100] for row in [row.fields]}) == 100


def test_without_the_library_the_way_to_install_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITE[".csv"](tmp_path / "rows.csv")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MezoError, match=r"needs the package 'datasets': pip install"):
        read_rows(tmp_path / "rows.csv")
