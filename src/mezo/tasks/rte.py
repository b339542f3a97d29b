"""RTE: does a sentence follow from a text?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.tasks.base import HubDataset, PackagedDataset, TextExample
from mezo.tasks.classification import YES_NO
from mezo.tasks.inference import ENTAILMENT, Inference
from mezo.tasks.row import Row

_SAMPLES = (
    {
        "premise": "The council of Oster voted on Tuesday to close the old bridge for repairs until spring.",
        "hypothesis": "The old bridge in Oster will be closed.",
        "label": "entailment",
    },
    {
        "premise": "Mara Lind, who had led the orchestra for nine years, moved to Lisbon in May.",
        "hypothesis": "Mara Lind was born in Lisbon.",
        "label": "not_entailment",
    },
)


@dataclass(frozen=True, kw_only=True)
class RTE(Inference):
    r"""`premise`, `hypothesis`, `label` (0 entailment, 1 not).

    Reference: Dagan et al. 2005 and later challenges; MeZO, Table 13 (masked), Table 14 (causal).
    Example:
        >>> RTE().causal(Row(_SAMPLES[0], "samples", 0)).tail
        '\nDoes this mean that "The old bridge in Oster will be closed." is true? Yes or No?\n'
    """

    name: str = "rte"
    home: HubDataset | PackagedDataset | None = HubDataset("aps/super_glue", "rte", {"test": "validation"})
    classes: tuple[tuple[str, ...], ...] = (ENTAILMENT, ("not_entailment", "not entailment"))
    label_words: tuple[str, ...] = YES_NO
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def causal(self, row: Row) -> TextExample:
        tail = f'\nDoes this mean that "{row.text("hypothesis")}" is true? Yes or No?\n'
        return self.asked(row, row.text("premise"), tail)
