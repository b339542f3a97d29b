"""Text files: the rows are the paragraphs, with empty lines between them."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mezo.data.formats.json_lines import LONGEST_LINE
from mezo.data.formats.json_values import decoded
from mezo.errors import MezoError
from mezo.tasks import Row


def read_text_lines(path: Path, file: BinaryIO) -> Iterator[Row]:
    """The rows of a .txt file in UTF-8: one of field `text` for each paragraph.

    Raises: MezoError if a paragraph is too long or is not UTF-8; it names the line.
    Example:
        >>> from io import BytesIO
        >>> [row.fields for row in read_text_lines(Path("a.txt"), BytesIO(b"one\\ntwo\\n\\nthree"))]
        [{'text': 'one\\ntwo'}, {'text': 'three'}]
    """
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
