"""The tasks by name. A new one is one file and one line here."""

from mezo.tasks.base import MASK, HubDataset, PackagedDataset, Task, TextExample
from mezo.tasks.demo import DEMO
from mezo.tasks.prompt_completion import PromptCompletion
from mezo.tasks.row import Row
from mezo.tasks.sst2 import SST2

TASKS: dict[str, Task] = {task.name: task for task in (SST2(), DEMO, PromptCompletion())}

__all__ = ["MASK", "TASKS", "HubDataset", "PackagedDataset", "Row", "Task", "TextExample"]
