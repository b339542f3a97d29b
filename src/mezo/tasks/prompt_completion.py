"""Your own data: a prompt and its completion."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.tasks.base import TextExample
from mezo.tasks.free_text import FreeText, answered
from mezo.tasks.row import Row

_SAMPLES = (
    {"prompt": "Ticket: the login page is blank\nTeam:", "completion": " web"},
    {"prompt": "Ticket: my invoice has the wrong address\nTeam:", "completion": " billing"},
)


@dataclass(frozen=True, kw_only=True)
class PromptCompletion(FreeText):
    """`prompt`, `completion`: both exactly as written, including the space between them.

    Rewards that need no answer can do without `completion`. A masked model sees as many masks after the prompt as the completion has tokens, and learns each at its place.

    Example:
        >>> PromptCompletion().causal(Row(_SAMPLES[0], "samples", 0)).candidates
        (' web',)
    """

    name: str = "prompt-completion"
    fields: tuple[str, ...] = ("prompt", "completion")
    optional: tuple[str, ...] = ("completion",)
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def causal(self, row: Row) -> TextExample:
        if self.writes and row.fields.get("completion") is None:
            return TextExample(row.text("prompt"), (), 0)
        return answered(row, row.text("prompt"), row.text("completion"), "completion")

    def masked(self, row: Row) -> TextExample:
        return answered(row, row.text("prompt"), row.text("completion"), "completion", masked=True)
