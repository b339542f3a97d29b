"""JSON Lines: one object a line, blank lines between them allowed."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mezo.data.formats.json_values import decoded, object_of, parsed
from mezo.errors import MezoError
from mezo.tasks import Row

LONGEST_LINE = 16 << 20  # bytes of a row: millions of words, more than any model reads


def read_json_lines(path: Path, file: BinaryIO) -> Iterator[Row]:
    """The rows of a .jsonl file in UTF-8.

    Raises: MezoError if a line is too long, is not UTF-8, or is not one JSON object; it names the line.
    Example:
        >>> from io import BytesIO
        >>> [row.fields for row in read_json_lines(Path("a.jsonl"), BytesIO(b'{"a": 1}'))]
        [{'a': 1}]
    """
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{path}:{number}"
        if len(line) > LONGEST_LINE:
            raise MezoError(f"{where}: expected a line of at most {LONGEST_LINE:,} bytes, found a longer one")
        text = decoded(line.removesuffix(b"\n"), where, first=number == 1)
        if text.strip():
            yield Row(object_of(parsed(text, where), where), str(path), number, is_line=True)
