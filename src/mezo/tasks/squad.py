"""SQuAD: a question whose answer is a span of a passage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.base import HubDataset, PackagedDataset, Task, TextExample
from mezo.tasks.questions import answered
from mezo.tasks.row import Row, shown

_CONTEXT = (
    "Port Meren grew around a salt works that opened in 1742. By 1800 it had four churches, two schools and the "
    "only glass furnace on the coast."
)
_SAMPLES = (
    {
        "title": "Port_Meren",
        "context": _CONTEXT,
        "question": "When did the salt works open?",
        "answers": {"text": ["1742", "in 1742"], "answer_start": [49, 46]},
    },
    {
        "title": "Port_Meren",
        "context": _CONTEXT,
        "question": "How many churches did Port Meren have by 1800?",
        "answers": {"text": ["four"], "answer_start": [66]},
    },
)


@dataclass(frozen=True, kw_only=True)
class SQuAD(Task):
    r"""`title`, `context`, `question`, `answers` ({"text": [...]}, or a list), or the articles of the original files.

    Questions without an answer (SQuAD 2) are left out.

    Reference: Rajpurkar et al. 2016; MeZO, Table 14.
    Example:
        >>> SQuAD().causal(Row(_SAMPLES[0], "samples", 0)).candidates
        (' 1742\n',)
    """

    name: str = "squad"
    home: HubDataset | PackagedDataset | None = HubDataset("rajpurkar/squad", splits={"test": "validation"})
    fields: tuple[str, ...] = ("title", "context", "question", "answers")
    has_candidates: bool = False
    metrics: tuple[str, ...] = ("squad-f1", "squad-em")
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def label(self, row: Row) -> None:
        return None

    def unfold(self, fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        if "paragraphs" not in fields:
            return (fields,)
        return [
            {"title": fields.get("title", ""), "context": paragraph.get("context"), **qa}
            for paragraph in fields["paragraphs"]
            for qa in paragraph.get("qas", ())
        ]

    def skips(self, row: Row) -> str | None:
        answers = row.fields.get("answers")
        texts = answers.get("text") if isinstance(answers, Mapping) else answers
        nothing = row.fields.get("is_impossible") is True or (isinstance(texts, list) and not texts)
        return "no answer in the passage" if nothing else None

    def causal(self, row: Row) -> TextExample:
        head = f"Title: {row.text('title')}\nContext: "
        return answered(row, row.text("context"), _texts(row), head=head)


def _texts(row: Row) -> tuple[str, ...]:
    answers = row.value("answers")
    texts = answers.get("text") if isinstance(answers, Mapping) else answers
    texts = [texts] if isinstance(texts, str) else texts
    if isinstance(texts, list | tuple):
        each = [item.get("text") if isinstance(item, Mapping) else item for item in texts]
        found = tuple(item for item in each if isinstance(item, str))
        if len(found) == len(each):
            return found
    raise MezoError(
        f"{row.where}: expected field 'answers' to hold {{'text': [...]}}, found {shown(answers)}"
    )
