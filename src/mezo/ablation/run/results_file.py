"""OUT/results.jsonl: the lines that describe a study, appended and never changed.

A line is written in one call and synced to the disk. A crash leaves at most a part of a line without a newline: readers
drop it, and the next append cuts it off.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mezo.errors import MezoError
from mezo.util.json_text import to_json

NAME = "results.jsonl"


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record as the last line. Raises MezoError if it cannot be written whole."""
    line = (to_json(dict(record)) + "\n").encode()
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _cut_torn_tail(file)
            if os.write(file, line) != len(line):
                raise OSError("only a part of the line was written")
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise MezoError(f"{path}: cannot add a result: {error}; free some space and start again") from None


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines in their order; none without a file.

    Raises MezoError, naming the line, if one is not a JSON object.
    """
    if not path.exists():
        return []
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MezoError(f"{path}: cannot read the results: {error.strerror}") from None
    records = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            shown = line[:40].decode(errors="replace")
            raise MezoError(f"{path}:{number}: expected a JSON object, found {shown!r}; remove the line")
        records.append(record)
    return records


def _cut_torn_tail(file: int) -> None:
    """Cut off what follows the last newline, searching blocks from the end."""
    size = end = os.fstat(file).st_size
    block = 1 << 16
    while end > 0:
        start = max(0, end - block)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end != size:
        os.ftruncate(file, end)
