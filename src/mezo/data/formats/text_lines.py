"""Text files: the rows are the paragraphs, with empty lines between them."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mezo.data.formats.json_lines import LONGEST_LINE
from mezo.data.formats.json_values import decoded
from mezo.errors import MezoError
from mezo.tasks import Row


def read_text_lines(path: Path, file: BinaryIO) -> Iterator[Row]:
    """One row of field `text` a paragraph."""
    number, first, lines = 0, 1, list[str]()
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{path}:{number}"
        if len(line) > LONGEST_LINE or sum(map(len, lines)) > LONGEST_LINE:
            raise MezoError(
                f"{where}: expected a paragraph of at most {LONGEST_LINE:,} bytes, found a longer one"
            )
        text = decoded(line, where, first=number == 1).rstrip("\r\n")
        if text.strip():
            first = number if not lines else first
            lines.append(text)
        elif lines:
            yield Row({"text": "\n".join(lines)}, str(path), first, is_line=True)
            lines = []
    if lines:
        yield Row({"text": "\n".join(lines)}, str(path), first, is_line=True)
