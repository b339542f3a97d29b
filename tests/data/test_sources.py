"""What a person may call "the data", and what they are told when there is none."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mezo.data.sources import load_rows
from mezo.errors import MezoError
from mezo.tasks import TASKS, HubDataset
from mezo.tasks.sst2 import SST2

TASK = TASKS["prompt-completion"]
ROWS = [{"prompt": f"{i}", "completion": " x"} for i in range(3)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def fields(source: Any, split: str = "train") -> list[Any]:
    return [dict(row.fields) for row in load_rows(source, TASK, split)]


def test_a_file_by_path_or_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "mine.jsonl", ROWS)
    assert fields(path) == fields(str(path)) == ROWS
    monkeypatch.chdir(tmp_path)
    assert fields("mine.jsonl", "validation") == ROWS


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
@pytest.mark.parametrize("asked", ["validation", "dev"])
def test_a_folder_holds_splits_under_any_spelling(tmp_path: Path, name: str, asked: str) -> None:
    write(tmp_path / "train.jsonl", ROWS[:1])
    write(tmp_path / f"{name}.jsonl", ROWS)
    assert fields(tmp_path, asked) == ROWS
    assert fields(str(tmp_path)) == ROWS[:1]


def test_the_spelling_asked_for_comes_first(tmp_path: Path) -> None:
    write(tmp_path / "validation.jsonl", ROWS)
    write(tmp_path / "dev.jsonl", ROWS[:1])
    assert fields(tmp_path, "dev") == ROWS[:1]
    assert fields(tmp_path, "validation") == ROWS


def test_a_folder_without_the_split_lists_what_it_has(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(MezoError, match=r"'test' \(a file such as test.jsonl\), found 'train'"):
        fields(tmp_path, "test")


@pytest.mark.parametrize("source", [ROWS, tuple(ROWS), {"train": ROWS}, {"training": ROWS, "test": []}])
def test_lists_and_dicts_of_lists(source: Any) -> None:
    assert fields(source) == ROWS


def test_rows_of_a_list_know_their_index() -> None:
    assert [row.where for row in load_rows(ROWS, TASK, "train")] == ["data[0]", "data[1]", "data[2]"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], r"data: expected at least one example, found none"),
        ([ROWS[0], "text"], r"data\[1\]: expected a dict of fields, found str"),
        (5, r"expected data as a file, .* found int"),
        (iter(ROWS), r"expected data as a file, .* found list_iterator"),
        ({"train": ROWS}, r"the data given: expected the split 'validation' or .*, found 'train'"),
        ("./nowhere", r"\./nowhere: no such file or folder"),
        ("/no/such/place", r"/no/such/place: no such file or folder"),
        ("a/b/c", r"a/b/c: no such file or folder"),
        ("nowhere.jsonl", r"nowhere\.jsonl: cannot be read: No such file"),
        (
            None,
            r"task 'prompt-completion' has no data of its own: give a \.jsonl file with fields prompt, comp",
        ),
    ],
)
def test_what_is_no_data(source: Any, message: str) -> None:
    with pytest.raises(MezoError, match=message) as caught:
        fields(source, "validation")
    assert "\n" not in str(caught.value)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A `datasets` that notes what it is asked for, and has only stanfordnlp/sst2 and them/theirs."""
    asked: list[tuple[Any, ...]] = []

    def load_dataset(name: str, config: str | None, *, split: str) -> list[dict[str, Any]]:
        asked.append((name, config, split))
        if name not in ("stanfordnlp/sst2", "them/theirs"):
            raise ConnectionError(f"cannot\nreach {name}")
        return [{"sentence": "fine", "label": 1}]

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_no_source_is_the_tasks_own(hub: list[tuple[Any, ...]]) -> None:
    (row,) = load_rows(None, TASKS["sst2"], "validation")
    load_rows(None, TASKS["sst2"], "test")  # the official test split has no labels
    assert hub == [("stanfordnlp/sst2", None, "validation")] * 2
    assert row.where == "stanfordnlp/sst2 validation[0]"


def test_a_tasks_own_name_brings_its_config_and_splits(hub: list[tuple[Any, ...]]) -> None:
    task = SST2(home=HubDataset("them/theirs", "small", {"validation": "held_out"}))
    load_rows(None, task, "validation")
    load_rows("them/theirs", task, "validation")
    load_rows("them/theirs", TASKS["sst2"], "validation")
    own = ("them/theirs", "small", "held_out")
    assert hub == [own, own, ("them/theirs", None, "validation")]


def test_repositories_that_hold_a_script_are_read_as_parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load_dataset(name: str, config: str | None = None, **options: str) -> list[dict[str, Any]]:
        asked.append((name, config, options))
        if name != "parquet":
            raise RuntimeError("Dataset scripts are no longer supported, but found trec.py")
        return [{"text": "Who ?", "coarse_label": 3}]

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "datasets", module)
    (row,) = load_rows(None, TASKS["trec"], "train")
    assert TASKS["trec"].label(row) == 3
    files = "hf://datasets/CogComp/trec@~parquet/default/train/*.parquet"
    assert asked[1] == ("parquet", None, {"data_files": files, "split": "train"})


@pytest.mark.usefixtures("hub")
def test_what_the_hub_cannot_give_is_one_line() -> None:
    with pytest.raises(
        MezoError, match=r"^'no/such' is no file .* 'train' .*\(cannot reach no/such\); check"
    ):
        fields("no/such")


def test_without_datasets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MezoError, match=r"'no/such' is no file .* pip install 'mezo-llm\[hub\]'"):
        fields("no/such")


def test_a_datasets_dataset() -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    assert fields(data) == ROWS
    assert fields(datasets.DatasetDict(train=data)) == ROWS
