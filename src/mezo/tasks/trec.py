"""TREC: what kind of thing does a question ask for?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.tasks.base import MASK, HubDataset, PackagedDataset, TextExample
from mezo.tasks.classification import Classification
from mezo.tasks.row import Row

_SAMPLES = (
    {"text": "Who built the first lighthouse on the island ?", "label": 3},
    {"text": "What does the letter K on a tram ticket stand for ?", "label": 2},
)
_HUB_ORDER = ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM")  # of the ints in the hub's coarse_label


@dataclass(frozen=True, kw_only=True)
class TREC(Classification):
    r"""`text`, `label` (0 to 5: DESC, ENTY, ABBR, HUM, LOC, NUM). The causal form is not the paper's.

    Ints in `label` are in the order of the paper's few-shot data, in `coarse_label` in the hub's (ABBR first).

    Reference: Voorhees and Tice 2000; Li and Roth 2002; MeZO, Table 13 (masked).
    Example:
        >>> TREC().causal(Row(_SAMPLES[0], "samples", 0)).prompt
        'Question: Who built the first lighthouse on the island ?\nType of answer:'
    """

    name: str = "trec"
    home: HubDataset | PackagedDataset | None = HubDataset("CogComp/trec", splits={"validation": "test"})
    fields: tuple[str, ...] = ("text", "label")
    aliases: tuple[tuple[str, str], ...] = (("sentence", "text"),)
    classes: tuple[tuple[str, ...], ...] = (
        ("description", "DESC"),
        ("entity", "ENTY"),
        ("abbreviation", "ABBR"),
        ("human", "HUM"),
        ("location", "LOC"),
        ("number", "NUM"),
    )
    label_words: tuple[str, ...] = (
        " Description",
        " Entity",
        " Expression",
        " Human",
        " Location",
        " Number",
    )
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def unfold(self, fields: Mapping[str, Any]) -> tuple[Mapping[str, Any]]:
        coarse = fields.get("coarse_label", fields.get("label-coarse"))
        if "label" in fields or coarse is None:
            return (fields,)
        if isinstance(coarse, str) and coarse.isdecimal():
            coarse = int(coarse)  # as a CSV has it
        if isinstance(coarse, int) and coarse in range(len(_HUB_ORDER)):
            coarse = _HUB_ORDER[coarse]
        return ({**fields, "label": coarse},)

    def causal(self, row: Row) -> TextExample:
        return self.asked(row, row.text("text").strip(), head="Question: ", tail="\nType of answer:")

    def masked(self, row: Row) -> TextExample:
        return self.asked(row, row.text("text").strip(), head=f"{MASK}: ", tail="")
