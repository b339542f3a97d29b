"""One raw example, and where it came from, so that every complaint can say where to look."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

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
            raise MezoError(f"{self.where}: expected text in field {name!r}, found {_shown(value)}")
        if _SURROGATE.search(value):
            raise MezoError(
                f"{self.where}: field {name!r} holds half of a surrogate pair, which is no character: "
                "write the file as UTF-8"
            )
        return value

    def label(self, name: str, words: Sequence[str]) -> int:
        """The class in field `name`, an index into `words`. MezoError if it is none of them."""
        value = self.value(name)
        if not isinstance(value, Integral) or int(value) not in range(len(words)):
            choices = ", ".join(f"{i} ({word.strip()})" for i, word in enumerate(words))
            raise MezoError(
                f"{self.where}: expected field {name!r} to be one of {choices}; found {_shown(value)}"
            )
        return int(value)

    def value(self, name: str) -> Any:
        """Whatever is in field `name`. MezoError, with the fields there are, if it is absent."""
        if name not in self.fields:
            found = ", ".join(map(repr, self.fields)) or "none"
            raise MezoError(
                f"{self.where}: expected a field {name!r}, found fields {found}; rename it, or choose another task"
            )
        return self.fields[name]


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(value).__name__})"
