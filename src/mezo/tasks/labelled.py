"""Texts with a label, whose classes are those that the data have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.base import MASK, Task, TextExample
from mezo.tasks.classification import Classification
from mezo.tasks.row import Row, shown

MOST_CLASSES = 1000
_SAMPLES = (
    {"text": "the login page is blank", "label": "web"},
    {"text": "my invoice has the wrong address", "label": "billing"},
)


@dataclass(frozen=True, kw_only=True)
class Labelled(Classification):
    """`text`, `label`: the label is chosen from those in the training data, as they are written there.

    Better words for the classes are given by label_words, in the order of the sorted labels.

    Example:
        >>> rows = [Row(fields, "samples", n) for n, fields in enumerate(_SAMPLES)]
        >>> Labelled().fitted(rows).causal(rows[0]).candidates
        (' billing', ' web')
    """

    name: str = "labelled"
    fields: tuple[str, ...] = ("text", "label")
    aliases: tuple[tuple[str, str], ...] = (("sentence", "text"),)
    fits: bool = True
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def fitted(self, rows: Sequence[Row]) -> Task:
        found = sorted({_spelled(row) for row in rows}, key=lambda name: (_number(name), name))
        if not 2 <= len(found) <= MOST_CLASSES:
            raise MezoError(
                f"{rows[0].source}: expected 2 to {MOST_CLASSES} different labels in field 'label', found {len(found)}: "
                + (
                    "there is nothing to choose"
                    if len(found) < 2
                    else "rows of prompt and completion learn free text"
                )
            )
        words = tuple(" " + word.strip() for word in self.label_words or found)
        if len(words) != len(found):
            raise MezoError(
                f"{rows[0].source}: expected {len(found)} label words, one for each label of the data "
                f"({', '.join(found[:12])}), found {len(words)}"
            )
        return replace(self, fits=False, classes=tuple((name,) for name in found), label_words=words)

    def label(self, row: Row) -> int:
        number = next((n for n, (name,) in enumerate(self.classes) if name == _spelled(row)), None)
        if number is None:
            names = ", ".join(name for (name,) in self.classes[:12])
            raise MezoError(
                f"{row.where}: expected a label of the training data ({names}), found {shown(row.value('label'))}"
            )
        return number

    def causal(self, row: Row) -> TextExample:
        return self.asked(row, row.text("text").strip(), tail="\nLabel:")

    def masked(self, row: Row) -> TextExample:
        return self.asked(row, row.text("text").strip(), tail=f" Label: {MASK}.")


def _spelled(row: Row) -> str:
    value = row.value("label")
    if isinstance(value, Integral | str) and str(value).strip() and str(value) != "-1":
        return str(value).strip()
    raise MezoError(f"{row.where}: expected a text or a whole number in field 'label', found {shown(value)}")


def _number(name: str) -> float:
    """Labels that are numbers are in the order of numbers."""
    return float(name) if name.isdecimal() else -1.0
