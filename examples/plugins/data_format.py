"""A data format: a label, a space, a sentence on each line. --data rows.labelled --data-format data_format.py:lines"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


def lines(path: Path, file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The rows of a file: its bytes, unpacked, are `file`; `path` is for messages."""
    for line in file:
        label, _, sentence = line.decode("utf-8").rstrip("\n").partition(" ")
        yield {"sentence": sentence, "label": int(label)}
