"""From what a person calls "the data" to rows: files, folders, globs, lists, frames, data sets."""

import glob
import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mezo.data import hub
from mezo.data.collections import rows_of
from mezo.data.files import SUFFIXES, read_rows
from mezo.data.formats.table_rows import TableRows
from mezo.data.formats.tables import library
from mezo.data.lazy import LAZY_FROM, MappedRows
from mezo.errors import MezoError, MissingSplit
from mezo.events import MezoWarning
from mezo.tasks import (
    TASKS,
    Auto,
    GeneratedDataset,
    HubDataset,
    Labelled,
    PackagedDataset,
    Row,
    Task,
    resolved,
)

_SPELLINGS = (("train", "training"), ("validation", "valid", "val", "dev"), ("test",))
DEFAULT = "sst2"  # the task of "auto" without data
_FIRST = 64  # rows that a task is recognised by
_PART = re.compile(r"-\d{5}-of-\d{5}$")  # the hub's names for parts of a split: train-00000-of-00002.parquet


def read_source(
    source: Any, task: Task, split: str, most: int | None = None
) -> tuple[Sequence[Row], Task, str | None]:
    """The rows of `split` in the task's own form; MeZODataset says what `source` may be.

    Other official names of fields get the task's, and an object that holds several examples gives as
    many rows. Rows that the task skips are left out, with a warning.

    most: rows to take from a stream, which has no length.

    Returns:
        The rows, the task (of "auto", the one that the rows are of) and a word about how they are read.

    Raises:
        MezoError: there is no such data, or its rows are not those of the task.
    """
    split = dict(task.splits).get(canonical(split), split)
    raw = _raw_rows(source, task, split, most)
    if source is None and isinstance(task, Auto):
        task, words = task.reading.of(TASKS[DEFAULT]), None
    else:
        task, words = resolved(task, raw[:_FIRST])
    inner = getattr(task, "inner", task)
    if isinstance(inner, Labelled) and isinstance(raw, TableRows):
        raw = raw.with_label_names()
    if len(raw) >= LAZY_FROM and isinstance(raw, TableRows) and raw.is_lazy and _is_one_to_one(inner):
        return MappedRows(raw, lambda row: _unfolded(row, task)[0]), task, words
    return _kept([row for each in raw for row in _unfolded(each, task)], task), task, words


def load_rows(source: Any, task: Task, split: str) -> Sequence[Row]:
    """The rows of `split` in the task's own form. Raises MezoError as `read_source` does."""
    return read_source(source, task, split)[0]


def has_splits(source: Any, task: Task) -> bool:
    """Whether the source is in splits; a single file or list is not."""
    if source is None:
        return task.home is not None or task.name == "auto"
    if isinstance(source, str | os.PathLike):
        path = Path(os.path.expanduser(source))
        if path.is_dir():
            return not (path / "state.json").is_file()  # a saved Dataset; a DatasetDict has none
        return not (path.is_file() or _is_glob(os.fspath(source)) or os.fspath(source).endswith(SUFFIXES))
    return isinstance(source, Mapping)


def canonical(split: str) -> str:
    """Of the spellings of a split the first: "validation" for "dev"."""
    return next((group[0] for group in _SPELLINGS if split in group), split)


def _is_one_to_one(task: Task) -> bool:
    return type(task).skips is Task.skips


def _unfolded(raw: Row, task: Task) -> list[Row]:
    renamed = {ours: raw.fields[theirs] for theirs, ours in task.aliases if theirs in raw.fields}
    given = {ours: raw.value(theirs) for theirs, ours in task.columns}
    try:
        unfolded = task.unfold({**renamed, **raw.fields, **given})
    except (AttributeError, KeyError, TypeError) as error:
        raise MezoError(
            f"{raw.where}: expected an object as the official files of task {task.name!r} have it, found one "
            f"that breaks off ({type(error).__name__}: {error})"
        ) from None
    return [Row(fields, raw.source, raw.number, raw.is_line) for fields in unfolded]


def _kept(rows: list[Row], task: Task) -> list[Row]:
    kept, reasons = [], []
    for row in rows:
        reason = task.skips(row)
        kept += [row] if reason is None else []
        reasons += [] if reason is None else [reason]
    if rows and not kept:
        raise MezoError(f"{rows[0].source}: expected examples to use, found {len(rows)} with {reasons[0]}")
    for reason, count in Counter(reasons).items():
        where = rows[0].source
        warnings.warn(
            f"{where}: {count} of {len(rows)} examples left out: {reason}", MezoWarning, stacklevel=2
        )
    return kept


def _raw_rows(source: Any, task: Task, split: str, most: int | None) -> Sequence[Row]:
    if source is None:
        return _from_home(TASKS[DEFAULT] if isinstance(task, Auto) else task, split)
    if isinstance(source, str | os.PathLike):
        return _from_name(os.fspath(source), task, split)
    if isinstance(source, Mapping):  # a datasets.DatasetDict, or a dict of lists
        return rows_of(source[_spelling(split, source, "the data given")], split, most)
    return rows_of(source, "data", most)


def _from_home(task: Task, split: str) -> Sequence[Row]:
    if isinstance(task.home, HubDataset):
        return rows_of(hub.load(task.home, split), f"{task.home.id} {split}")
    if isinstance(task.home, PackagedDataset):
        return _from_folder(Path(__file__).parent / task.home.folder, split)
    if isinstance(task.home, GeneratedDataset):
        if canonical(split) not in ("train", "validation", "test"):
            raise MissingSplit(
                f"task {task.name!r}: expected the split train, validation or test, found {split!r}"
            )
        return rows_of(list(task.generated(canonical(split))), f"{task.name} {split}")
    raise MezoError(
        f"task {task.name!r} has no data of its own: give a .jsonl file with fields {', '.join(task.fields)}"
    )


def _from_name(name: str, task: Task, split: str) -> Sequence[Row]:
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return _from_folder(path, split, task.data_format)
    if _is_glob(name) and not path.exists():
        found = [Path(found) for found in sorted(glob.glob(str(path), recursive=True))]
        return _joined(found, name, task.data_format)
    if path.exists() or name.endswith(SUFFIXES):
        return read_rows(path, task.data_format)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise MezoError(f"{name}: no such file or folder")
    home = task.home if isinstance(task.home, HubDataset) and task.home.id == name else hub.named(name)
    return rows_of(hub.load(home, split), f"{name} {split}")


def _is_glob(name: str) -> bool:
    return glob.has_magic(name)


def _joined(files: list[Path], name: str, form: str | None) -> Sequence[Row]:
    """The rows of all the files, in the order of their names."""
    if not files:
        raise MezoError(f"{name}: no file has a name like this")
    if len(files) == 1:
        return read_rows(files[0], form)
    return [row for file in files for row in read_rows(file, form)]


def _from_folder(folder: Path, split: str, form: str | None = None) -> Sequence[Row]:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _saved(folder, split)
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        ends = sorted((s for s in SUFFIXES if file.name.endswith(s)), key=len, reverse=True)
        if form is not None and not ends and file.is_file() and file.suffix:
            ends = [file.suffix]
        if not ends or file.name == ends[0]:
            continue
        suffix = ends[0]
        files.setdefault(_PART.sub("", file.name.removesuffix(suffix)), []).append(file)
    found = files[_spelling(split, files, str(folder))]
    if len(found) > 1 and not all(_PART.search(file.name.partition(".")[0]) for file in found):
        names = ", ".join(file.name for file in found)
        raise MezoError(f"{folder}: expected one file of the split {split!r}, found {names}: leave one there")
    return _joined(found, str(folder), form)


def _saved(folder: Path, split: str) -> Sequence[Row]:
    """What `save_to_disk` wrote."""
    datasets = library(f"{folder}: reading a saved data set")
    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever the library raises for broken files
        raise MezoError(
            f"{folder}: not a readable saved data set: {' '.join(str(error).split())[:300]}"
        ) from None
    if isinstance(found, Mapping):
        return rows_of(found[_spelling(split, found, str(folder))], f"{folder} {split}")
    return rows_of(found, str(folder))


def _spelling(split: str, choices: Mapping[str, Any], where: str) -> str:
    """The key of `choices` that means `split`."""
    group = next((group for group in _SPELLINGS if split in group), (split,))
    found = [name for name in (split, *group) if name in choices]
    if not found:
        raise MissingSplit(
            f"{where}: expected the split {' or '.join(map(repr, dict.fromkeys((split, *group))))} "
            f"(a file such as {split}.jsonl), found {', '.join(map(repr, choices)) or 'nothing'}"
        )
    return found[0]
