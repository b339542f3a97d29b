"""WiC: does a word have the same sense in two sentences?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.tasks.base import HubDataset, PackagedDataset, TextExample
from mezo.tasks.classification import FALSE_TRUE, NO_YES, Classification
from mezo.tasks.row import Row

_SAMPLES = (
    {
        "word": "bank",
        "sentence1": "They picnicked on the bank.",
        "sentence2": "The bank raised its rates.",
        "label": False,
    },
    {
        "word": "draw",
        "sentence1": "He draws boats.",
        "sentence2": "Draw me a map of the harbour.",
        "label": True,
    },
)


@dataclass(frozen=True, kw_only=True)
class WiC(Classification):
    r"""`word`, `sentence1`, `sentence2`, `label` (0 or false: another sense, 1 or true: the same).

    Reference: Pilehvar and Camacho-Collados 2019; MeZO, Table 14.
    Example:
        >>> WiC().causal(Row(_SAMPLES[0], "samples", 0)).head
        'Does the word "bank" have the same meaning in these two sentences? Yes, No?\n'
    """

    name: str = "wic"
    home: HubDataset | PackagedDataset | None = HubDataset("aps/super_glue", "wic", {"test": "validation"})
    fields: tuple[str, ...] = ("word", "sentence1", "sentence2", "label")
    classes: tuple[tuple[str, ...], ...] = FALSE_TRUE
    label_words: tuple[str, ...] = NO_YES
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def causal(self, row: Row) -> TextExample:
        word = row.text("word")
        head = f'Does the word "{word}" have the same meaning in these two sentences? Yes, No?\n'
        return self.asked(row, row.text("sentence1"), head=head, tail=f"\n{row.text('sentence2')}\n")
