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

TASKS: dict[str, Task] = {task.name: task for task in (SST2(), DEMO, PromptCompletion())}


def task_for(name: str, label_words: Sequence[str] | None = None) -> Task:
    """The task called `name`, with other words for its classes where `label_words` gives them.

    A word is what the model should say; the space before it is added where it is missing. Which
    words are used matters more than any other setting of a prompt (docs/results.md).

    Raises MezoError for an unknown name, or words that are not one for each class.
    """
    task = look_up(TASKS, name, "task")
    if not label_words:
        return task
    if not task.label_words:
        raise MezoError(f"task {name!r} has no label words to replace: its rows bring their own answers")
    if len(label_words) != len(task.label_words) or len(set(label_words)) != len(label_words):
        own = ", ".join(word.strip() for word in task.label_words)
        raise MezoError(
            f"task {name!r} needs {len(task.label_words)} different label words, in the order of its own "
            f"({own}); found {', '.join(label_words)}"
        )
    return replace(task, label_words=tuple(" " + word.strip() for word in label_words))


__all__ = ["MASK", "TASKS", "HubDataset", "PackagedDataset", "Row", "Task", "TextExample", "task_for"]
