"""MNLI: does a sentence follow from another one, of any genre?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.tasks.base import HubDataset, PackagedDataset, TextExample
from mezo.tasks.inference import CONTRADICTION, ENTAILMENT, NEUTRAL, Inference
from mezo.tasks.row import Row

_MATCHED = {"validation": "validation_matched", "test": "validation_matched"}
_SAMPLES = (
    {
        "premise": "The ferry no longer runs after dark, except on market days.",
        "hypothesis": "There is a ferry on some evenings.",
        "label": 0,
    },
    {
        "premise": "yeah we used to grow our own beans out back",
        "hypothesis": "They also grew tomatoes.",
        "label": 1,
    },
)


@dataclass(frozen=True, kw_only=True)
class MNLI(Inference):
    r"""`premise`, `hypothesis`, `label` (0 entailment, 1 neutral, 2 contradiction). The causal form is CB's.

    Reference: Williams et al. 2018; MeZO, Table 13 (masked). Validation and test are the matched genres.
    Example:
        >>> MNLI().causal(Row(_SAMPLES[0], "samples", 0)).tail
        ' Can we infer that "There is a ferry on some evenings."? Yes, No, or Maybe?\n'
    """

    name: str = "mnli"
    home: HubDataset | PackagedDataset | None = HubDataset("nyu-mll/multi_nli", splits=_MATCHED)
    classes: tuple[tuple[str, ...], ...] = (ENTAILMENT, NEUTRAL, CONTRADICTION)
    label_words: tuple[str, ...] = (" Yes", " Maybe", " No")
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def skips(self, row: Row) -> str | None:
        # the original files mark a pair without a majority so; the hub has none
        return "no gold label" if row.fields.get("label") == "-" else None

    def causal(self, row: Row) -> TextExample:
        return self.supposed(row)
