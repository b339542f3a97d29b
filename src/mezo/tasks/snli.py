"""SNLI: does another sentence follow from the caption of a picture?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.tasks.base import HubDataset, PackagedDataset, TextExample
from mezo.tasks.inference import CONTRADICTION, ENTAILMENT, NEUTRAL, Inference
from mezo.tasks.row import Row

_SAMPLES = (
    {
        "premise": "A man in a red cap is mending a fishing net.",
        "hypothesis": "A person is repairing something.",
        "label": 0,
    },
    {
        "premise": "Three children race down a sand dune.",
        "hypothesis": "The children are asleep.",
        "label": 2,
    },
)


@dataclass(frozen=True, kw_only=True)
class SNLI(Inference):
    r"""`premise`, `hypothesis`, `label` (0 entailment, 1 neutral, 2 contradiction). The causal form is CB's.

    Rows without a majority of the annotators (label -1 or "-") are left out.

    Reference: Bowman et al. 2015; MeZO, Table 13 (masked).
    Example:
        >>> SNLI().causal(Row(_SAMPLES[0], "samples", 0)).tail
        ' Can we infer that "A person is repairing something."? Yes, No, or Maybe?\n'
    """

    name: str = "snli"
    home: HubDataset | PackagedDataset | None = HubDataset("stanfordnlp/snli")
    classes: tuple[tuple[str, ...], ...] = (ENTAILMENT, NEUTRAL, CONTRADICTION)
    label_words: tuple[str, ...] = (" Yes", " Maybe", " No")
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def skips(self, row: Row) -> str | None:
        return "no gold label" if row.fields.get("label") in (-1, "-") else None

    def causal(self, row: Row) -> TextExample:
        return self.supposed(row)
