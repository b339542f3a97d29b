"""WSC, the Winograd Schema Challenge: what does a pronoun refer to?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.tasks.base import HubDataset, PackagedDataset, TextExample
from mezo.tasks.classification import FALSE_TRUE, NO_YES, Classification
from mezo.tasks.row import Row

_SAMPLES = (
    {
        "text": "The kettle would not fit on the shelf because it was too tall.",
        "span1_text": "The kettle",
        "span2_text": "it",
        "label": True,
    },
    {
        "text": "Ines thanked Ruth because she had fixed the boat.",
        "span1_text": "Ines",
        "span2_text": "she",
        "label": False,
    },
)


@dataclass(frozen=True, kw_only=True)
class WSC(Classification):
    """`text`, `span1_text`, `span2_text` (the pronoun), `label` (0 or false, 1 or true).

    The `target` of the SuperGLUE files may hold the spans.

    Reference: Levesque et al. 2012; MeZO, Table 14.
    Example:
        >>> WSC().causal(Row(_SAMPLES[0], "samples", 0)).candidates
        ('No', 'Yes')
    """

    name: str = "wsc"
    home: HubDataset | PackagedDataset | None = HubDataset(
        "aps/super_glue", "wsc.fixed", {"test": "validation"}
    )
    fields: tuple[str, ...] = ("text", "span1_text", "span2_text", "label")
    classes: tuple[tuple[str, ...], ...] = FALSE_TRUE
    label_words: tuple[str, ...] = NO_YES
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def unfold(self, fields: Mapping[str, Any]) -> tuple[Mapping[str, Any]]:
        target = fields.get("target")
        return ({**fields, **target},) if isinstance(target, Mapping) else (fields,)

    def causal(self, row: Row) -> TextExample:
        pronoun, noun = row.text("span2_text").lower(), row.text("span1_text")
        tail = f'\nIn the previous sentence, does the pronoun "{pronoun}" refer to {noun}? Yes or No?\n'
        return self.asked(row, row.text("text"), tail)
