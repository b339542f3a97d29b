"""From what a person calls "the data" to rows: files, folders, lists, data sets."""

import os
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mezo.data import hub
from mezo.data.files import SUFFIXES, read_rows
from mezo.errors import MezoError, MissingSplit
from mezo.events import MezoWarning
from mezo.tasks import HubDataset, PackagedDataset, Row, Task

_SPELLINGS = (("train", "training"), ("validation", "valid", "val", "dev"), ("test",))


def load_rows(source: Any, task: Task, split: str) -> list[Row]:
    """The rows of `split` in the task's own form; MeZODataset says what `source` may be.

    Other official names of fields get the task's, and an object that holds several examples gives as
    many rows. Rows that the task skips are left out, with a warning. Raises MezoError.
    """
    rows = [row for raw in _raw_rows(source, task, split) for row in _unfolded(raw, task)]
    return _kept(rows, task)


def has_splits(source: Any, task: Task) -> bool:
    """Whether the source is in splits; a single file or list is not."""
    if source is None:
        return task.home is not None
    if isinstance(source, str | os.PathLike):
        return not (Path(source).expanduser().is_file() or os.fspath(source).endswith(SUFFIXES))
    return isinstance(source, Mapping)


def canonical(split: str) -> str:
    """Of the spellings of a split the first: "validation" for "dev"."""
    return next((group[0] for group in _SPELLINGS if split in group), split)


def _unfolded(raw: Row, task: Task) -> list[Row]:
    renamed = {ours: raw.fields[theirs] for theirs, ours in task.aliases if theirs in raw.fields}
    try:
        unfolded = task.unfold({**renamed, **raw.fields})
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


def _raw_rows(source: Any, task: Task, split: str) -> list[Row]:
    if source is None:
        return _from_home(task, split)
    if isinstance(source, str | os.PathLike):
        return _from_name(os.fspath(source), task, split)
    if isinstance(source, Mapping):  # a datasets.DatasetDict, or a dict of lists
        return _from_items(source[_spelling(split, source, "the data given")], split)
    return _from_items(source, "data")


def _from_home(task: Task, split: str) -> list[Row]:
    if isinstance(task.home, HubDataset):
        return _from_items(hub.load(task.home, split), f"{task.home.id} {split}")
    if isinstance(task.home, PackagedDataset):
        return _from_folder(Path(__file__).parent / task.home.folder, split)
    raise MezoError(
        f"task {task.name!r} has no data of its own: give a .jsonl file with fields {', '.join(task.fields)}"
    )


def _from_name(name: str, task: Task, split: str) -> list[Row]:
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_folder(path, split)
    if path.exists() or name.endswith(SUFFIXES):
        return read_rows(path)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise MezoError(f"{name}: no such file or folder")
    home = task.home if isinstance(task.home, HubDataset) and task.home.id == name else HubDataset(name)
    return _from_items(hub.load(home, split), f"{name} {split}")


def _from_folder(folder: Path, split: str) -> list[Row]:
    files = {path.name.removesuffix(s): path for s in SUFFIXES for path in folder.glob(f"*{s}")}
    return read_rows(files[_spelling(split, files, str(folder))])


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


def _from_items(items: Any, source: str) -> list[Row]:
    if not hasattr(items, "__len__") or not hasattr(items, "__getitem__"):
        raise MezoError(
            f"expected data as a file, a folder, a list of dicts or a data set, found {type(items).__name__}"
        )
    rows = []
    for number in range(len(items)):
        item = items[number]
        if not isinstance(item, Mapping):
            raise MezoError(f"{source}[{number}]: expected a dict of fields, found {type(item).__name__}")
        rows.append(Row(item, source, number))
    if not rows:
        raise MezoError(f"{source}: expected at least one example, found none")
    return rows
