"""CB, CommitmentBank: is the writer committed to a clause of the text?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.tasks.base import HubDataset, PackagedDataset, TextExample
from mezo.tasks.inference import CONTRADICTION, ENTAILMENT, NEUTRAL, Inference
from mezo.tasks.row import Row

_SAMPLES = (
    {
        "premise": "B: We went back in June. A: Uh-huh. B: I never thought the house would still be standing.",
        "hypothesis": "the house would still be standing",
        "label": "contradiction",
    },
    {
        "premise": "She closed the ledger. If he had sold the boat, she would hear of it by Friday.",
        "hypothesis": "he had sold the boat",
        "label": "neutral",
    },
)


@dataclass(frozen=True, kw_only=True)
class CB(Inference):
    r"""`premise`, `hypothesis`, `label` (0 entailment, 1 contradiction, 2 neutral). The masked form is SNLI's.

    Reference: de Marneffe et al. 2019; MeZO, Table 14. SuperGLUE's score is the mean of accuracy and macro-F1.
    Example:
        >>> CB().causal(Row(_SAMPLES[0], "samples", 0)).tail
        ' Can we infer that "the house would still be standing"? Yes, No, or Maybe?\n'
    """

    name: str = "cb"
    home: HubDataset | PackagedDataset | None = HubDataset("aps/super_glue", "cb", {"test": "validation"})
    classes: tuple[tuple[str, ...], ...] = (ENTAILMENT, CONTRADICTION, NEUTRAL)
    label_words: tuple[str, ...] = (" Yes", " No", " Maybe")
    metrics: tuple[str, ...] = ("accuracy", "macro-f1")
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def causal(self, row: Row) -> TextExample:
        return self.supposed(row)
