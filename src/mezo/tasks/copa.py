"""COPA: which of two sentences is the cause, or the effect, of another?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.base import HubDataset, PackagedDataset, Task, TextExample
from mezo.tasks.row import Row, shown

_CONJUNCTIONS = {"cause": " because", "effect": " so"}
_SAMPLES = (
    {
        "premise": "The lamp in the hall went out.",
        "choice1": "The storm cut the power.",
        "choice2": "The guests arrived early.",
        "question": "cause",
        "label": 0,
    },
    {
        "premise": "The baker forgot the salt.",
        "choice1": "The oven was too hot.",
        "choice2": "The bread tasted of nothing.",
        "question": "effect",
        "label": 1,
    },
)


@dataclass(frozen=True, kw_only=True)
class COPA(Task):
    """`premise`, `choice1`, `choice2`, `question` (cause or effect), `label` (0 or 1).

    The candidates are the choices, with a lower-case first word (but for "I").

    Reference: Roemmele et al. 2011; MeZO, Table 14; lower case and full stop as in the published code.
    Example:
        >>> COPA().causal(Row(_SAMPLES[0], "samples", 0)).prompt
        'The lamp in the hall went out because'
    """

    name: str = "copa"
    home: HubDataset | PackagedDataset | None = HubDataset("aps/super_glue", "copa", {"test": "validation"})
    fields: tuple[str, ...] = ("premise", "choice1", "choice2", "question", "label")
    classes: tuple[tuple[str, ...], ...] = (("choice1",), ("choice2",))
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def label(self, row: Row) -> int:
        return row.label("label", self.classes)

    def causal(self, row: Row) -> TextExample:
        asked = row.text("question")
        if asked not in _CONJUNCTIONS:
            raise MezoError(
                f"{row.where}: expected field 'question' to be 'cause' or 'effect', found {shown(asked)}"
            )
        candidates = tuple(f" {_lowered(row.text(name))}" for name in ("choice1", "choice2"))
        premise = row.text("premise").rstrip().removesuffix(".")
        return TextExample(premise, candidates, self.label(row), tail=_CONJUNCTIONS[asked])


def _lowered(choice: str) -> str:
    first, space, rest = choice.strip().partition(" ")
    return (first if first == "I" else first.lower()) + space + rest
