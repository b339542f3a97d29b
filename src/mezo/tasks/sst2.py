"""SST-2: is a sentence of a film review positive? (Socher et al. 2013)."""

from dataclasses import dataclass
from typing import Literal

from mezo.tasks.base import MASK, HubDataset, PackagedDataset, Task, TextExample
from mezo.tasks.row import Row


@dataclass(frozen=True)
class SST2(Task):
    """`sentence`, `label` (0 negative, 1 positive); MeZO, Table 13 (masked) and Table 14 (causal)."""

    name: str = "sst2"
    home: HubDataset | PackagedDataset | None = HubDataset("stanfordnlp/sst2")
    fields: tuple[str, ...] = ("sentence", "label")
    label_words: tuple[str, ...] = (" terrible", " great")
    has_candidates: bool = True
    metric: Literal["accuracy", "loss"] = "accuracy"

    def label(self, row: Row) -> int:
        return row.label("label", self.label_words)

    def causal(self, row: Row) -> TextExample:
        return TextExample(
            text=row.text("sentence").strip(),
            tail=" It was",
            candidates=self.label_words,
            answer=self.label(row),
        )

    def masked(self, row: Row) -> TextExample:
        return TextExample(
            text=row.text("sentence").strip(),
            tail=f" It was {MASK}.",
            candidates=self.label_words,
            answer=self.label(row),
        )
