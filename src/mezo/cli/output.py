"""What is printed of texts that other people wrote: nothing in them acts upon a terminal, and no secret is shown."""

import sys
from typing import TYPE_CHECKING, TextIO

from mezo.util.parsing import printable
from mezo.util.secrets import hidden

if TYPE_CHECKING:
    from rich.text import Text


def say(text: object, to: TextIO | None = None) -> None:
    """Print on lines of its own, at once. to: default: sys.stdout."""
    print(hidden(printable(str(text))), file=to or sys.stdout, flush=True)


def cell(text: object, style: str = "") -> "Text":
    """For a table of rich, which reads no markup in it."""
    from rich.text import Text

    return Text(hidden(printable(str(text))), style=style)
