"""Your own data: a prompt and its completion."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.base import Task, TextExample
from mezo.tasks.row import Row

_SAMPLES = (
    {"prompt": "Ticket: the login page is blank\nTeam:", "completion": " web"},
    {"prompt": "Ticket: my invoice has the wrong address\nTeam:", "completion": " billing"},
)


@dataclass(frozen=True, kw_only=True)
class PromptCompletion(Task):
    """`prompt`, `completion`: both exactly as written, including the space between them.

    Example:
        >>> PromptCompletion().causal(Row(_SAMPLES[0], "samples", 0)).candidates
        (' web',)
    """

    name: str = "prompt-completion"
    fields: tuple[str, ...] = ("prompt", "completion")
    has_candidates: bool = False
    metrics: tuple[str, ...] = ()  # the loss alone
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def label(self, row: Row) -> None:
        return None

    def causal(self, row: Row) -> TextExample:
        completion = row.text("completion")
        if not completion:
            raise MezoError(f"{row.where}: expected some text in field 'completion', found none")
        return TextExample(
            row.text("prompt"), candidates=(completion,), answer=0, references=(completion.strip(),)
        )
