"""Which task rows are of, told by their fields: for `task: auto`."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.base import HubDataset, Task, TextExample
from mezo.tasks.conversation import is_messages
from mezo.tasks.row import Row

# The forms that people write, the most telling first: fields of which a row must have all.
FORMS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("messages",), "chat"),
    (("conversations",), "chat"),
    (("conversation",), "chat"),
    (("chosen", "rejected"), "preference"),
    (("prompt", "completion"), "prompt-completion"),
    (("instruction", "output"), "instruction"),
    (("text", "label"), "labelled"),
    (("sentence", "label"), "labelled"),
    (("question", "answer"), "question-answer"),
    (("text",), "text"),
    (("prompt",), "prompt-completion"),
)
# A field that is nearly one of these says that a row is of a longer form.
_BESIDE: dict[tuple[str, ...], tuple[str, ...]] = {
    ("prompt",): ("completion", "chosen", "rejected"),
    ("text",): ("label",),
}
_EXTRA = {"idx", "id", "uid", "guid", "label_text", "source"}  # fields that tell nothing of a row's form


@dataclass(frozen=True, kw_only=True)
class Auto(Task):
    """Stands for a task that is found when the first rows are read."""

    name: str = "auto"
    fields: tuple[str, ...] = ()
    reading: Any  # mezo.tasks.RowOptions: how the rows are read once the task is known

    def label(self, row: Row) -> None:
        raise AssertionError("the task was not resolved")

    def causal(self, row: Row) -> TextExample:
        raise AssertionError("the task was not resolved")


def recognised(rows: Sequence[Row], tasks: Mapping[str, Task], columns: Mapping[str, str]) -> tuple[str, str]:
    """The name of the task of these rows, and a sentence about it for people.

    A public data set of the table is recognised by exactly its fields and all its classes, since its prompt is better
    than a form's own. Raises MezoError if no form fits, or several tasks do.

    rows: the first ones. columns: names of fields -> what they are read as, by column.
    """
    fields = {columns.get(name, name): value for name, value in rows[0].fields.items()}
    public = [task.name for task in tasks.values() if _is_public(task, rows, fields)]
    if len(public) == 1:
        return public[
            0
        ], f"reading rows of {_listed(fields)} as task {public[0]!r} (--task to choose another)"
    if len(public) > 1:
        raise MezoError(
            f"{rows[0].where}: fields {_listed(fields)} are those of tasks {', '.join(public)}: choose one with --task"
        )
    for needed, name in FORMS:
        if fields.keys() >= set(needed) and not _is_slip(needed, fields):
            if name == "prompt-completion" and is_messages(fields["prompt"]):
                name = "chat"
            return name, f"reading rows of {_listed(needed)} as task {name!r}"
    raise MezoError(f"{rows[0].where}: {_nearest(list(fields))}")


def _is_public(task: Task, rows: Sequence[Row], fields: Mapping[str, Any]) -> bool:
    if not isinstance(task.home, HubDataset) or "label" not in task.fields or not task.classes:
        return False
    if set(fields) - _EXTRA != set(task.fields):
        return False
    try:
        return {row.label("label", task.classes) for row in rows} == set(range(len(task.classes)))
    except MezoError:
        return False


def _is_slip(needed: tuple[str, ...], fields: Mapping[str, Any]) -> bool:
    """Whether a row of this form has another field that is nearly one of a longer form."""
    others = [field for field in fields if field not in needed]
    return any(difflib.get_close_matches(name, others, 1, 0.6) for name in _BESIDE.get(needed, ()))


def _nearest(fields: list[str]) -> str:
    """What is wrong with these fields: which form they come nearest to, and what to do."""
    lacking = [needed for needed, _ in FORMS if set(needed) - set(fields)]
    best = max(lacking, key=lambda needed: _likeness(needed, fields))
    missing = [name for name in best if name not in fields]
    left, pairs = [name for name in fields if name not in best], []
    for name in missing:
        guess = next(iter([*difflib.get_close_matches(name, left, 1, 0.6), *left, "FIELD"]))
        left = [other for other in left if other != guess]
        pairs.append(f"{name}={guess}")
    forms = "; ".join(dict.fromkeys(", ".join(needed) for needed, _ in FORMS))
    return (
        f"expected rows of one of these forms: {forms}; found fields {_listed(fields)}, which come nearest to "
        f"{_listed(best)}: name the fields with --columns {','.join(pairs)}, or a task with --task"
    )


def _likeness(needed: Sequence[str], fields: Sequence[str]) -> float:
    close = [max((difflib.SequenceMatcher(None, n, f).ratio() for f in fields), default=0.0) for n in needed]
    return sum(close) / len(close)


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
