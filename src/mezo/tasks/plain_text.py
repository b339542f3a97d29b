"""Plain texts: ordinary language modelling."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.base import TextExample
from mezo.tasks.free_text import FreeText
from mezo.tasks.row import Row

_SAMPLES = ({"text": "Tickets about invoices go to billing."}, {"text": "A blank page is for the web team."})


@dataclass(frozen=True, kw_only=True)
class PlainText(FreeText):
    """`text`: every token of it is learned; the end of a text that is too long is cut.

    Where the tokenizer puts no token before a text, its first token is given and not learned.

    Example:
        >>> PlainText().causal(Row(_SAMPLES[0], "samples", 0)).candidates
        ('Tickets about invoices go to billing.',)
    """

    name: str = "text"
    fields: tuple[str, ...] = ("text",)
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def causal(self, row: Row) -> TextExample:
        text = row.text("text")
        if not text.strip():
            raise MezoError(f"{row.where}: expected some text in field 'text', found none")
        return TextExample("", (text,), 0, cuts_answer=True)
