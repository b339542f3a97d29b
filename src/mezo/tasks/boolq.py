"""BoolQ: a yes/no question about a passage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.tasks.base import MASK, HubDataset, PackagedDataset, TextExample
from mezo.tasks.classification import FALSE_TRUE, NO_YES, Classification
from mezo.tasks.row import Row

_SAMPLES = (
    {
        "passage": "Tide mill -- A tide mill is a water mill driven by the rise and fall of the tide. A dam with "
        "a sluice is built across an inlet, which fills as the tide comes in.",
        "question": "does a tide mill need a river",
        "label": False,
    },
    {
        "passage": "Sea kale -- Sea kale is a plant of the cabbage family that grows wild on shingle beaches. "
        "Its blanched shoots are eaten as a vegetable.",
        "question": "can you eat sea kale",
        "label": True,
    },
)


@dataclass(frozen=True, kw_only=True)
class BoolQ(Classification):
    r"""`passage`, `question`, `label` (0 or false: no, 1 or true: yes). The masked form is not the paper's.

    Reference: Clark et al. 2019; MeZO, Table 14; capital and question mark as in the published code.
    Example:
        >>> BoolQ().causal(Row(_SAMPLES[0], "samples", 0)).tail
        ' Does a tide mill need a river?\n'
    """

    name: str = "boolq"
    home: HubDataset | PackagedDataset | None = HubDataset("aps/super_glue", "boolq", {"test": "validation"})
    fields: tuple[str, ...] = ("passage", "question", "label")
    aliases: tuple[tuple[str, str], ...] = (("answer", "label"),)  # in the original release
    classes: tuple[tuple[str, ...], ...] = FALSE_TRUE
    label_words: tuple[str, ...] = NO_YES
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def causal(self, row: Row) -> TextExample:
        return self.asked(row, row.text("passage"), tail=f" {_question(row)}\n")

    def masked(self, row: Row) -> TextExample:
        return self.asked(row, row.text("passage").strip(), tail=f" {_question(row)} {MASK}.")


def _question(row: Row) -> str:
    question = row.text("question").strip()
    return question[:1].upper() + question[1:] + ("" if question.endswith("?") else "?")
