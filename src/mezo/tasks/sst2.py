"""SST-2: is a sentence of a film review positive?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.tasks.base import MASK, HubDataset, PackagedDataset, TextExample
from mezo.tasks.classification import Classification
from mezo.tasks.row import Row

_SAMPLES = (
    {"sentence": "a quiet , generous film that earns its last scene .", "label": 1},
    {"sentence": "two hours of noise in search of a joke .", "label": 0},
)


@dataclass(frozen=True, kw_only=True)
class SST2(Classification):
    """`sentence`, `label` (0 negative, 1 positive).

    Reference: Socher et al. 2013; MeZO, Table 13 (masked) and Table 14 (causal).
    Example:
        >>> SST2().causal(Row(_SAMPLES[0], "samples", 0)).prompt
        'a quiet , generous film that earns its last scene . It was'
    """

    name: str = "sst2"
    home: HubDataset | PackagedDataset | None = HubDataset("stanfordnlp/sst2", splits={"test": "validation"})
    fields: tuple[str, ...] = ("sentence", "label")
    aliases: tuple[tuple[str, str], ...] = (("text", "sentence"),)
    classes: tuple[tuple[str, ...], ...] = (("negative",), ("positive",))
    label_words: tuple[str, ...] = (" terrible", " great")
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def causal(self, row: Row) -> TextExample:
        return self.asked(row, row.text("sentence").strip(), tail=" It was")

    def masked(self, row: Row) -> TextExample:
        return self.asked(row, row.text("sentence").strip(), tail=f" It was {MASK}.")
