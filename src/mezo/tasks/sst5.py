"""SST-5: how positive is a sentence of a film review?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.tasks.base import MASK, HubDataset, PackagedDataset, TextExample
from mezo.tasks.classification import Classification
from mezo.tasks.row import Row

_SAMPLES = (
    {"sentence": "competent , and gone from memory by the car park .", "label": 2},
    {"sentence": "the year 's warmest surprise .", "label": 4},
)


@dataclass(frozen=True, kw_only=True)
class SST5(Classification):
    """`sentence`, `label` (0 very negative .. 4 very positive). The causal form is SST-2's with these words.

    Reference: Socher et al. 2013; MeZO, Table 13 (masked).
    Example:
        >>> SST5().causal(Row(_SAMPLES[0], "samples", 0)).candidates
        (' terrible', ' bad', ' okay', ' good', ' great')
    """

    name: str = "sst5"
    home: HubDataset | PackagedDataset | None = HubDataset("SetFit/sst5")
    fields: tuple[str, ...] = ("sentence", "label")
    aliases: tuple[tuple[str, str], ...] = (("text", "sentence"),)
    classes: tuple[tuple[str, ...], ...] = (
        ("very negative",),
        ("negative",),
        ("neutral",),
        ("positive",),
        ("very positive",),
    )
    label_words: tuple[str, ...] = (" terrible", " bad", " okay", " good", " great")
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def causal(self, row: Row) -> TextExample:
        return self.asked(row, row.text("sentence").strip(), tail=" It was")

    def masked(self, row: Row) -> TextExample:
        return self.asked(row, row.text("sentence").strip(), tail=f" It was {MASK}.")
