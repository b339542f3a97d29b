"""The tasks by name. A new one is one file and one line here."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mezo.errors import MezoError, near
from mezo.tasks.base import MASK, GeneratedDataset, HubDataset, PackagedDataset, Task, TextExample, placed
from mezo.tasks.boolq import BoolQ
from mezo.tasks.cb import CB
from mezo.tasks.chat import Chat
from mezo.tasks.classification import Classification
from mezo.tasks.copa import COPA
from mezo.tasks.countdown import Countdown
from mezo.tasks.demo import DEMO
from mezo.tasks.drop import DROP
from mezo.tasks.gsm8k import GSM8K
from mezo.tasks.instruction import Instruction
from mezo.tasks.labelled import Labelled
from mezo.tasks.mnli import MNLI
from mezo.tasks.multirc import MultiRC
from mezo.tasks.plain_text import PlainText
from mezo.tasks.preference import Preference
from mezo.tasks.prompt_completion import PromptCompletion
from mezo.tasks.question_answer import QuestionAnswer
from mezo.tasks.recognise import Auto, recognised
from mezo.tasks.record import ReCoRD
from mezo.tasks.row import Row
from mezo.tasks.rte import RTE
from mezo.tasks.snli import SNLI
from mezo.tasks.squad import SQuAD
from mezo.tasks.sst2 import SST2
from mezo.tasks.sst5 import SST5
from mezo.tasks.templated import Templated, with_template
from mezo.tasks.trec import TREC
from mezo.tasks.wic import WiC
from mezo.tasks.wsc import WSC
from mezo.util import plugins

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(SST2(), SST5(), SNLI(), MNLI(), RTE(), TREC()),  # the paper's for masked models
        *(CB(), BoolQ(), WSC(), WiC(), MultiRC(), COPA(), ReCoRD(), SQuAD(), DROP()),  # and for causal ones
        *(DEMO, PromptCompletion(), Chat(), Instruction(), QuestionAnswer(), PlainText(), Labelled()),
        *(Preference(), GSM8K(), Countdown()),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """How rows are read, beyond the task's name.

    Args:
        label_words: one a class, in the order of the task's own; the space before a word is added.
        template: see `Templated`. Words and template matter more than any other setting: docs/results.md.
        columns: field -> the column of the data that it is in.
        splits: split -> what the data call it.
        append_eos: end the answers of free-text tasks with the model's end token.
        parse_special: take control tokens that are written out in the data as such.
        turns: of a conversation, learn "all" the assistant's turns or the "last".
        metrics: to judge by, in place of the task's own.
        data_format: of the files, whatever their names end in.
        prefill: what the model writes begins with this.
    """

    label_words: Sequence[str] | None = None
    template: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    append_eos: bool = True
    parse_special: bool = False
    turns: str = "all"
    metrics: Sequence[str] | None = None
    data_format: str | None = None
    prefill: str = ""

    def of(self, task: Task) -> Task:
        """The task, read like this. Raises MezoError for words that are not one for each class, or a broken template."""
        reading = {
            "columns": tuple((theirs, ours) for ours, theirs in self.columns.items()),
            "splits": tuple(self.splits.items()),
            "append_eos": task.append_eos and self.append_eos,
            "parse_special": self.parse_special,
            "turns": self.turns,
            "metrics": task.metrics if self.metrics is None else tuple(self.metrics),
            "data_format": self.data_format,
            "prefill": self.prefill,
        }
        if any(getattr(task, name) != value for name, value in reading.items()):
            task = replace(task, **reading)
        if self.label_words:
            task = _with_words(task, self.label_words)
        return with_template(task, self.template) if self.template else task


def task_for(
    name: str,
    label_words: Sequence[str] | None = None,
    template: str | None = None,
    *,
    reading: RowOptions | None = None,
) -> Task:
    """The task called `name`, with other words for its classes, or another prompt, where they are given.

    name: one of TASKS, a YAML file (`mezo.tasks.yaml_task` says what it holds), a plugin's, or "auto": the task that the
        first rows of the data turn out to be of.
    reading: instead of words and template, all of how rows are read.

    Raises MezoError for an unknown name, words that are not one for each class, or a broken template.
    """
    reading = reading or RowOptions(label_words=label_words, template=template)
    return (
        Auto(reading=reading, splits=tuple(reading.splits.items()), data_format=reading.data_format)
        if name == "auto"
        else reading.of(_named(name))
    )


def resolved(task: Task, rows: Sequence[Row]) -> tuple[Task, str | None]:
    """The task of these rows, the first of the data: of "auto" the one they are recognised as, with a word about it."""
    if not isinstance(task, Auto):
        return task, None
    reading: RowOptions = task.reading
    name, words = recognised(rows, TASKS, {theirs: ours for ours, theirs in reading.columns.items()})
    return reading.of(TASKS[name]), words


def _named(name: str) -> Task:
    if name not in TASKS and name.endswith((".yaml", ".yml")):
        from mezo.tasks.load_task import read_task

        return read_task(Path(os.path.expanduser(name)))
    if (base := name.partition("(")[0]) != name and base in TASKS:
        return _with_settings(TASKS[base], plugins.split(name)[1])
    found, settings = plugins.find("task", name, TASKS)
    return plugins.made(f"task {name!r}", found, settings) if isinstance(found, type) else found


def _with_settings(task: Task, settings: Mapping[str, Any]) -> Task:
    """A task of the table with settings of its own, such as countdown(numbers=4)."""
    known = {each.name for each in fields(task)} - {each.name for each in fields(Task)}
    for key in settings:
        if key not in known:
            raise MezoError(f"task {task.name!r} has no setting {key!r}{near(key, sorted(known))}")
    return replace(task, **settings)


def _with_words(task: Task, words: Sequence[str]) -> Task:
    if isinstance(task, Labelled):
        return replace(task, label_words=tuple(words))
    if not task.label_words:
        raise MezoError(f"task {task.name!r} has no label words to replace: its rows bring their own answers")
    if len(words) != len(task.label_words) or len(set(words)) != len(words):
        own = ", ".join(word.strip() for word in task.label_words)
        raise MezoError(
            f"task {task.name!r} needs {len(task.label_words)} different label words, in the order of its own "
            f"({own}); found {', '.join(words)}"
        )
    return replace(task, label_words=tuple(" " + word.strip() for word in words))


__all__ = [
    "MASK",
    "TASKS",
    "Auto",
    "Classification",
    "GeneratedDataset",
    "HubDataset",
    "PackagedDataset",
    "Row",
    "RowOptions",
    "Task",
    "Templated",
    "TextExample",
    "placed",
    "resolved",
    "task_for",
]
