"""ReCoRD: which entity of a news article fills the gap of a query?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.base import HubDataset, PackagedDataset, Task, TextExample
from mezo.tasks.row import Row

_GAP = "@placeholder"
_PASSAGE = (
    "The harbour town of Velm has a new mayor. Tove Arden, a former ferry captain, beat Jon Hald by a dozen "
    "votes on Sunday.\n@highlight\nArden wants a night ferry to Orsk\n@highlight\nHald asked for a recount"
)
_SAMPLES = (
    {
        "passage": _PASSAGE,
        "query": f'"I know every one of those boats," said {_GAP}, who piloted them for years.',
        "entities": ["Velm", "Tove Arden", "Arden", "Jon Hald", "Hald", "Orsk"],
        "answers": ["Tove Arden", "Arden"],
    },
    {
        "passage": _PASSAGE,
        "query": f"The last boat to {_GAP} leaves at eight at present.",
        "entities": ["Velm", "Tove Arden", "Arden", "Jon Hald", "Hald", "Orsk"],
        "answers": ["Orsk"],
    },
)


@dataclass(frozen=True, kw_only=True)
class ReCoRD(Task):
    """`passage`, `query` (with one or more @placeholder), `entities`, `answers`, or the nested SuperGLUE objects.

    The candidates are the query with each different entity in its gap; several may be right.

    Reference: Zhang et al. 2018; MeZO, Table 14: highlights and query are items of one list, as in GPT-3's form.
    Example:
        >>> ReCoRD().causal(Row(_SAMPLES[0], "samples", 0)).candidates[0]
        ' "I know every one of those boats," said Velm, who piloted them for years.'
    """

    name: str = "record"
    home: HubDataset | PackagedDataset | None = HubDataset("aps/super_glue", "record", {"test": "validation"})
    fields: tuple[str, ...] = ("passage", "query", "entities", "answers")
    metrics: tuple[str, ...] = ("accuracy", "record-f1", "record-em")
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def label(self, row: Row) -> None:
        return None

    def unfold(self, fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        passage, text = fields.get("passage"), None
        if isinstance(passage, Mapping):
            text = passage.get("text")
        if not isinstance(passage, Mapping) or not isinstance(text, str):
            return (fields,)
        # `end` is the last character of an entity, not the one after it.
        spans = [text[e["start"] : e["end"] + 1] for e in passage.get("entities", ())]
        return [
            {
                "passage": text,
                "query": qa.get("query"),
                "entities": list(dict.fromkeys(spans)),
                "answers": list(dict.fromkeys(a.get("text") for a in qa.get("answers", ()))),
                "idx": {"passage": fields.get("idx"), "query": qa.get("idx")},
            }
            for qa in fields.get("qas", ())
        ]

    def causal(self, row: Row) -> TextExample:
        query, answers = row.text("query").strip(), row.texts("answers")
        entities = tuple(dict.fromkeys(row.texts("entities")))
        if _GAP not in query:
            raise MezoError(f"{row.where}: expected {_GAP} in field 'query', found none")
        right = tuple(number for number, entity in enumerate(entities) if entity in answers)
        if not right:
            raise MezoError(
                f"{row.where}: expected one of the {len(entities)} entities in field 'answers', found "
                f"{', '.join(map(repr, answers)) or 'none'}; choose a split that has answers"
            )
        return TextExample(
            text=row.text("passage").replace("@highlight\n", "- "),
            tail="\n-",
            candidates=tuple(f" {query.replace(_GAP, entity)}" for entity in entities),
            answer=right[0],
            answers=right,
            references=tuple(dict.fromkeys(answers)),
        )
