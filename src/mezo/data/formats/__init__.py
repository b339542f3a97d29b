"""Formats of data files by their suffix. A new one is one file and one line here; each may be gzipped, too."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from mezo.data.formats.json_lines import read_json_lines
from mezo.data.formats.json_list import read_json_list
from mezo.tasks import Row

# Each is called with the file's path, for messages, and its bytes, unpacked; it yields the rows.
FORMATS: dict[str, Callable[[Path, BinaryIO], Iterator[Row]]] = {
    ".jsonl": read_json_lines,
    ".json": read_json_list,
}
