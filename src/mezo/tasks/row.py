"""One raw example, and where it came from, so that every complaint can say where to look."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from mezo.errors import MezoError

# JSON can escape one half of a pair alone; tokenizers refuse such text with a message of their own.
_SURROGATE = re.compile("[\\ud800-\\udfff]")


@dataclass(frozen=True, slots=True)
class Row:
    """A JSON object and its place: the line of a file (from 1) or the index in a list (from 0)."""

    fields: Mapping[str, Any]
    source: str
    number: int
    is_line: bool = False

    @property
    def where(self) -> str:
        """`data/train.jsonl:17`, or `list[16]`."""
        return f"{self.source}:{self.number}" if self.is_line else f"{self.source}[{self.number}]"

    def text(self, name: str) -> str:
        """The text in field `name`, as it stands. MezoError if it is absent or no valid text."""
        value = self.value(name)
        if not isinstance(value, str):
            raise MezoError(f"{self.where}: expected text in field {name!r}, found {shown(value)}")
        if _SURROGATE.search(value):
            raise MezoError(
                f"{self.where}: field {name!r} holds half of a surrogate pair, which is no character: "
                "write the file as UTF-8"
            )
        return value

    def label(self, name: str, classes: Sequence[Sequence[str]]) -> int:
        """The class in field `name`: an index into `classes`, or one of the spellings there.

        classes: for each class, the ways it is written, the first for people: (("entailment",), ...).
            True and False are labels only where a class is spelled "true" or "false".

        Raises MezoError if the field is not one of them, or -1: what unlabelled test data have.
        """
        value = self.value(name)
        spelled = str(value).casefold() if isinstance(value, str | bool | np.bool_) else None
        for number, spellings in enumerate(classes):
            if spelled is None and isinstance(value, Integral) and int(value) == number:
                return number
            if spelled is not None and spelled.strip() in (s.casefold() for s in spellings):
                return number
        if spelled is not None and spelled.strip().isdecimal() and int(spelled) < len(classes):
            return int(spelled)  # as a CSV has it
        choices = ", ".join(f"{i} ({spellings[0]})" for i, spellings in enumerate(classes))
        unlabelled = isinstance(value, Integral) and not isinstance(value, bool) and int(value) == -1
        raise MezoError(
            f"{self.where}: expected field {name!r} to be one of {choices}; found {shown(value)}"
            + (", which marks examples without a label: choose a split that has labels" if unlabelled else "")
        )

    def texts(self, name: str) -> tuple[str, ...]:
        """The texts in field `name`: a list of texts, or one text. MezoError if it is anything else."""
        value = self.value(name)
        if isinstance(value, str):
            return (self.text(name),)
        if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
            raise MezoError(f"{self.where}: expected a list of texts in field {name!r}, found {shown(value)}")
        return tuple(Row({name: item}, self.source, self.number, self.is_line).text(name) for item in value)

    def value(self, name: str) -> Any:
        """Whatever is in field `name`. MezoError, with the fields there are, if it is absent."""
        if name not in self.fields:
            found = ", ".join(map(repr, self.fields)) or "none"
            raise MezoError(
                f"{self.where}: expected a field {name!r}, found fields {found}; rename it, or choose another task"
            )
        return self.fields[name]


def shown(value: object) -> str:
    """A value for an error message: shortened, with its type."""
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(value).__name__})"
