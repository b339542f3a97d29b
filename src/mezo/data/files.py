"""Reading JSON Lines and JSON files, with errors that name the file and the line."""

import gzip
import io
import json
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mezo.errors import MezoError
from mezo.tasks import Row

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
# Gzip makes a thousandth of what repeats itself, and text comes to 3 to 20 times its compressed size: a small file
# that would come to more than this is no data, and would fill the memory.
EXPANSION, ALWAYS = 50, 64 << 20  # times the file's size; bytes


def read_rows(path: Path) -> list[Row]:
    """The objects of a .jsonl or .json file, either of them gzipped.

    JSON Lines: one object a line, blank lines between them allowed. JSON: one list of objects, or an
    object with the list under "data" (as SQuAD has it) or with nothing but objects in it (DROP).
    UTF-8, with or without a byte order mark. Raises MezoError if the file cannot be read, is of
    another kind, breaks off, holds anything but objects, holds nothing, or is gzipped and comes to more
    than both 50 times its size and 64 MiB.
    """
    if not path.name.endswith(SUFFIXES):
        raise MezoError(f"{path}: expected a file name ending in {', '.join(SUFFIXES)}")
    content = _content(path)
    lines = path.name.removesuffix(".gz").endswith(".jsonl")
    rows = list(_from_lines(path, content) if lines else _from_list(path, content))
    if not rows:
        raise MezoError(f"{path}: expected at least one example, found none; give a file that is not empty")
    return rows


_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def _content(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or a device may never end
            raise MezoError(
                f"{path}: expected a file, found {_KINDS.get(stat.S_IFMT(found.st_mode), 'a device')}"
            )
        if not path.name.endswith(".gz"):
            return path.read_bytes()
        most = max(EXPANSION * found.st_size, ALWAYS)
        with gzip.open(path) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise MezoError(
                f"{path}: expected {found.st_size:,} bytes of gzip to come to {most:,} at most, found more; if it is "
                "data all the same, unpack it (gunzip)"
            )
        return data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise MezoError(
            f"{path}: expected a whole gzip file, found otherwise ({error}); make it anew"
        ) from None
    except OSError as error:
        raise MezoError(f"{path}: cannot be read: {error.strerror or error}") from None


def _from_lines(path: Path, content: bytes) -> Iterator[Row]:
    for number, line in enumerate(io.BytesIO(content), start=1):
        text = _decoded(line.removesuffix(b"\n"), f"{path}:{number}", first=number == 1)
        if text.strip():
            yield Row(
                _object(_parsed(text, f"{path}:{number}"), f"{path}:{number}"),
                str(path),
                number,
                is_line=True,
            )


def _from_list(path: Path, content: bytes) -> Iterator[Row]:
    values = _parsed(_decoded(content, str(path), first=True), str(path))
    if isinstance(values, dict):
        inside = values.get("data", list(values.values()))
        values = inside if isinstance(inside, list) and all(isinstance(v, dict) for v in inside) else values
    if not isinstance(values, list):
        raise MezoError(
            f"{path}: expected a list of JSON objects, found {_kind(values)}; one object a line is .jsonl"
        )
    for number, value in enumerate(values):
        yield Row(_object(value, f"{path}[{number}]"), str(path), number)


def _decoded(data: bytes, where: str, *, first: bool) -> str:
    try:
        return data.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise MezoError(
            f"{where}: expected UTF-8, found byte 0x{data[error.start]:02x} at position {error.start}; "
            "save the file as UTF-8"
        ) from None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        reason = error.msg[0].lower() + error.msg[1:]
        raise MezoError(f"{where}: expected a JSON value, found broken JSON: {reason} ({place})") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits; brackets nested too deep
        raise MezoError(f"{where}: expected a JSON value of ordinary size: {error}") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MezoError(f'{where}: expected a JSON object such as {{"prompt": ...}}, found {_kind(value)}')
    return value


def _kind(value: object) -> str:
    names = {
        list: "a list",
        dict: "an object",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")
