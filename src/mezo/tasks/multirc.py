"""MultiRC: is an answer to a question about a paragraph right?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mezo.tasks.base import HubDataset, PackagedDataset, TextExample
from mezo.tasks.classification import FALSE_TRUE, NO_YES, Classification
from mezo.tasks.row import Row

_PARAGRAPH = (
    "The lighthouse at Skarn was built by two brothers in 1871. The elder kept the lamp for thirty years; the "
    "younger, who was afraid of the sea, moved inland after the first winter and became a baker."
)
_SAMPLES = tuple(
    {
        "paragraph": _PARAGRAPH,
        "question": "What did the younger brother do after the first winter?",
        "answer": answer,
        "label": label,
        "idx": {"paragraph": 0, "question": 0, "answer": number},
    }
    for number, (answer, label) in enumerate((("He moved inland", 1), ("He kept the lamp", 0)))
)


@dataclass(frozen=True, kw_only=True)
class MultiRC(Classification):
    """`paragraph`, `question`, `answer`, `label` (0 wrong, 1 right), or the nested SuperGLUE objects.

    Each answer to a question is a row. The rows of a question are a `group`, for its exact match.

    Reference: Khashabi et al. 2018; MeZO, Table 14. SuperGLUE's metrics follow the paper's accuracy.
    Example:
        >>> MultiRC().causal(Row(_SAMPLES[0], "samples", 0)).candidates
        ('No', 'Yes')
    """

    name: str = "multirc"
    home: HubDataset | PackagedDataset | None = HubDataset(
        "aps/super_glue", "multirc", {"test": "validation"}
    )
    fields: tuple[str, ...] = ("paragraph", "question", "answer", "label")
    classes: tuple[tuple[str, ...], ...] = FALSE_TRUE
    label_words: tuple[str, ...] = NO_YES
    metrics: tuple[str, ...] = ("accuracy", "multirc-f1a", "multirc-em")
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def unfold(self, fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        passage = fields.get("passage")
        if not isinstance(passage, Mapping):
            return (fields,)
        return [
            {
                "paragraph": passage.get("text"),
                "question": question.get("question"),
                "answer": answer.get("text"),
                **({"label": answer["label"]} if "label" in answer else {}),
                "idx": {"paragraph": fields.get("idx"), "question": question.get("idx", number)},
            }
            for number, question in enumerate(passage.get("questions", ()))
            for answer in question.get("answers", ())
        ]

    def causal(self, row: Row) -> TextExample:
        tail = (
            f"\nQuestion: {row.text('question')}\n"
            f'I found this answer "{row.text("answer")}". Is that correct? Yes or No?\n'
        )
        return replace(self.asked(row, row.text("paragraph"), tail), group=_question(row))


def _question(row: Row) -> str:
    """What tells a question from all others: its numbers, or else its words with the paragraph's."""
    idx = row.fields.get("idx")
    if isinstance(idx, Mapping) and idx.get("paragraph") is not None and idx.get("question") is not None:
        return f"{idx['paragraph']}-{idx['question']}"
    return f"{row.text('question')}\n{row.text('paragraph')}"
