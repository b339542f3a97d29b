"""The tasks by name. A new one is one file and one line here."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mezo.errors import MezoError
from mezo.tasks.base import MASK, HubDataset, PackagedDataset, Task, TextExample, placed
from mezo.tasks.boolq import BoolQ
from mezo.tasks.cb import CB
from mezo.tasks.classification import Classification
from mezo.tasks.copa import COPA
from mezo.tasks.demo import DEMO
from mezo.tasks.drop import DROP
from mezo.tasks.mnli import MNLI
from mezo.tasks.multirc import MultiRC
from mezo.tasks.prompt_completion import PromptCompletion
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
from mezo.util.registry import look_up

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(SST2(), SST5(), SNLI(), MNLI(), RTE(), TREC()),  # the paper's for masked models
        *(CB(), BoolQ(), WSC(), WiC(), MultiRC(), COPA(), ReCoRD(), SQuAD(), DROP()),  # and for causal ones
        *(DEMO, PromptCompletion()),
    )
}


def task_for(name: str, label_words: Sequence[str] | None = None, template: str | None = None) -> Task:
    """The task called `name`, with other words for its classes, or another prompt, where they are given.

    name: one of TASKS, a YAML file (`mezo.tasks.yaml_task` says what it holds), or `module:Class`.
    label_words: one a class, in the order of the task's own; the space before a word is added.
    template: see `Templated`. Words and template matter more than any other setting: docs/results.md.

    Raises MezoError for an unknown name, words that are not one for each class, or a broken template.
    """
    task = _named(name)
    if label_words:
        task = _with_words(task, label_words)
    return with_template(task, template) if template else task


def _named(name: str) -> Task:
    if name not in TASKS and name.endswith((".yaml", ".yml")):
        from mezo.tasks.load_task import read_task

        return read_task(Path(name).expanduser())
    if name not in TASKS and ":" in name:
        from mezo.tasks.load_task import imported_task

        return imported_task(name)
    return look_up(TASKS, name, "task")


def _with_words(task: Task, words: Sequence[str]) -> Task:
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
    "Classification",
    "HubDataset",
    "PackagedDataset",
    "Row",
    "Task",
    "Templated",
    "TextExample",
    "placed",
    "task_for",
]
