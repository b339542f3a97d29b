"""Every form of rows through every source: the table of docs/guide/own-data.md, a test a cell."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from tests.toys import byte_tokenizer

from mezo.data import MeZODataset
from mezo.data.formats import FORMATS

CHAT = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def talk(n: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"q{n}, \n?"}, {"role": "assistant", "content": f"a{n}"}]


FORMS: dict[str, Callable[[int], dict[str, Any]]] = {
    "messages": lambda n: {"messages": talk(n)},
    "conversations": lambda n: {
        "conversations": [{"from": m["role"], "value": m["content"]} for m in talk(n)]
    },
    "prompt and completion, lists": lambda n: {"prompt": talk(n)[:1], "completion": talk(n)[1:]},
    "prompt and completion": lambda n: {"prompt": f'say "{n}", ', "completion": f"0{n}"},
    "instruction, input, output": lambda n: {"instruction": f"add {n}", "input": "1", "output": f"{n}"},
    "question and answer": lambda n: {"question": f"q{n}", "answer": f"a{n}"},
    "text": lambda n: {"text": f"once {n} upon"},
    "text and label": lambda n: {"text": f"t{n}", "label": ["web", "billing"][n % 2]},
}
Rows = Sequence[dict[str, Any]]


def _jsonl(rows: Rows, path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _json(rows: Rows, path: Path) -> Path:
    path.write_text(json.dumps(rows))
    return path


def _csv(rows: Rows, path: Path) -> Path:
    """Lists as JSON, as a spreadsheet has them."""
    flat = [{k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows]
    pd.DataFrame(flat).to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def _parquet(rows: Rows, path: Path) -> Path:
    datasets.Dataset.from_list(list(rows)).to_parquet(path)
    return path


def _saved(rows: Rows, path: Path) -> Path:
    datasets.Dataset.from_list(list(rows)).save_to_disk(path)
    return path


def _arrow(rows: Rows, path: Path) -> Path:
    return next(_saved(rows, path.with_suffix("")).glob("*.arrow"))


def _folder(rows: Rows, path: Path) -> Path:
    path.mkdir()
    _jsonl(rows, path / "train.jsonl")
    return path


SOURCES: dict[str, Callable[[Rows, Path], Any]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
    "folder": _folder,
    "save_to_disk": _saved,
    "DatasetDict": lambda rows, path: datasets.DatasetDict({"train": datasets.Dataset.from_list(list(rows))}),
    "Dataset": lambda rows, path: datasets.Dataset.from_list(list(rows)),
    "IterableDataset": lambda rows, path: datasets.Dataset.from_list(list(rows)).to_iterable_dataset(),
    "pandas": lambda rows, path: pd.DataFrame(list(rows)),
}


def test_every_file_format_is_a_source() -> None:
    assert set(FORMATS) - {".txt"} <= set(SOURCES)  # text has no fields: tests/data/test_tables.py


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("form", FORMS)
def test_a_form_through_a_source_comes_to_the_same_tokens(form: str, source: str, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT
    rows = [FORMS[form](n) for n in range(4)]
    place = SOURCES[source](rows, tmp_path / f"rows{source if source.startswith('.') else ''}")
    expected = MeZODataset(rows)
    found = MeZODataset(place, max_examples=4)
    assert found.task == expected.task
    assert list(found.encode(tokenizer, "causal", 200)) == list(expected.encode(tokenizer, "causal", 200))
