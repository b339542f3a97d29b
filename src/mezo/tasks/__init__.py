"""The tasks by name. A new one is one file and one line here."""

from collections.abc import Sequence
from dataclasses import replace

from mezo.errors import MezoError
from mezo.registry import look_up
from mezo.tasks.base import MASK, HubDataset, PackagedDataset, Task, TextExample
from mezo.tasks.demo import DEMO
from mezo.tasks.prompt_completion import PromptCompletion
from mezo.tasks.row import Row
from mezo.tasks.sst2 import SST2
from mezo.tasks.templated import Templated, with_template

TASKS: dict[str, Task] = {task.name: task for task in (SST2(), DEMO, PromptCompletion())}


def task_for(name: str, label_words: Sequence[str] | None = None, template: str | None = None) -> Task:
    """The task called `name`, with other words for its classes, or another prompt, where they are given.

    label_words: one a class, in the order of the task's own; the space before a word is added.
    template: see `Templated`. Words and template matter more than any other setting: docs/results.md.

    Raises MezoError for an unknown name, words that are not one for each class, or a broken template.
    """
    task = look_up(TASKS, name, "task")
    if label_words:
        task = _with_words(task, label_words)
    return with_template(task, template) if template else task


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
    "HubDataset",
    "PackagedDataset",
    "Row",
    "Task",
    "Templated",
    "TextExample",
    "task_for",
]
