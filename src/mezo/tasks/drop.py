"""DROP: a question that takes counting, sorting or arithmetic over a passage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.base import HubDataset, PackagedDataset, Task, TextExample
from mezo.tasks.questions import answered
from mezo.tasks.row import Row, shown

_PASSAGE = (
    "In the first race the Herons came home in 34 minutes, the Otters in 37. In the second, on rougher water, "
    "the Otters needed 41 minutes and the Herons, with a broken oar, 52."
)
_SAMPLES = (
    {
        "passage": _PASSAGE,
        "question": "How many minutes faster were the Herons than the Otters in the first race?",
        "answers_spans": {"spans": ["3"], "types": ["number"]},
    },
    {
        "passage": _PASSAGE,
        "question": "Which crew had a broken oar?",
        "answers_spans": {"spans": ["Herons"], "types": ["span"]},
    },
)


@dataclass(frozen=True, kw_only=True)
class DROP(Task):
    r"""`passage`, `question`, `answers_spans` ({"spans": [...], "types": [...]}), or the original nested form.

    Reference: Dua et al. 2019; MeZO, Table 14: the first span is learned, all are `references`.
    Example:
        >>> DROP().causal(Row(_SAMPLES[0], "samples", 0)).candidates
        (' 3\n',)
    """

    name: str = "drop"
    home: HubDataset | PackagedDataset | None = HubDataset("ucinlp/drop", splits={"test": "validation"})
    fields: tuple[str, ...] = ("passage", "question", "answers_spans")
    aliases: tuple[tuple[str, str], ...] = (("context", "passage"),)
    has_candidates: bool = False
    metrics: tuple[str, ...] = ("drop-f1", "drop-em")
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def label(self, row: Row) -> None:
        return None

    def unfold(self, fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        pairs = fields["qa_pairs"] if isinstance(fields.get("qa_pairs"), list) else (fields,)
        return [_flat({**fields, **pair}) for pair in pairs]

    def causal(self, row: Row) -> TextExample:
        found = row.value("answers_spans")
        spans = found.get("spans") if isinstance(found, Mapping) else found
        if not isinstance(spans, list | tuple) or not all(isinstance(span, str) for span in spans):
            raise MezoError(
                f"{row.where}: expected field 'answers_spans' to hold {{'spans': [...]}}, found {shown(found)}"
            )
        return answered(row, row.text("passage"), tuple(spans), head="Passage: ")


def _flat(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The original form of an answer in the hub's."""
    if "answers_spans" in fields or not isinstance(fields.get("answer"), Mapping):
        return fields
    kept = {name: value for name, value in fields.items() if name != "qa_pairs"}
    return {**kept, "answers_spans": {"spans": _spans(fields["answer"])}}


def _spans(answer: Mapping[str, Any]) -> list[str]:
    if answer.get("number") not in (None, ""):
        return [str(answer["number"])]
    date = answer.get("date") or {}
    day = " ".join(str(date[part]) for part in ("day", "month", "year") if date.get(part))
    return [day] if day else list(answer.get("spans") or ())
