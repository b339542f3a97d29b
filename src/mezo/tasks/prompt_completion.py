"""A person's own data: a prompt and the completion that is wanted."""

from dataclasses import dataclass
from typing import Literal, NoReturn

from mezo.errors import MezoError
from mezo.tasks.base import HubDataset, PackagedDataset, Task, TextExample
from mezo.tasks.row import Row


@dataclass(frozen=True)
class PromptCompletion(Task):
    """`prompt`, `completion`: both exactly as written, so the space between them is the writer's."""

    name: str = "prompt-completion"
    home: HubDataset | PackagedDataset | None = None
    fields: tuple[str, ...] = ("prompt", "completion")
    label_words: tuple[str, ...] = ()
    has_candidates: bool = False
    metric: Literal["accuracy", "loss"] = "loss"

    def label(self, row: Row) -> None:
        return None

    def causal(self, row: Row) -> TextExample:
        completion = row.text("completion")
        if not completion:
            raise MezoError(f"{row.where}: expected some text in field 'completion', found none")
        return TextExample(text=row.text("prompt"), candidates=(completion,), answer=0)

    def masked(self, row: Row) -> NoReturn:
        raise MezoError(
            f"{row.where}: task {self.name!r} continues its prompts, which a masked language model cannot; "
            "choose a causal model, or another task"
        )
