"""Reading JSON Lines and JSON files, with errors that name the file and the line.

What is held is the rows and one line, however long the file: it may be other people's, and made to fill the memory.
"""

import contextlib
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mezo.errors import MezoError
from mezo.tasks import Row
from mezo.util.foreign import kind_of

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
# Gzip makes a thousandth of what repeats itself, and text comes to 3 to 20 times its compressed size: a small file
# that would come to more than this is no data.
EXPANSION, ALWAYS = 50, 64 << 20  # times the file's size; bytes
LONGEST_LINE = 16 << 20  # bytes of a row: millions of words, more than any model reads
LARGEST_JSON = (
    512 << 20
)  # bytes of a .json file, which is parsed as one value: SQuAD's training split has 30 MB
_CHUNK = 1 << 20


def read_rows(path: Path) -> list[Row]:
    """The objects of a .jsonl or .json file, either of them gzipped.

    JSON Lines: one object a line, blank lines between them allowed. JSON: one list of objects, or an
    object with the list under "data" (as SQuAD has it) or with nothing but objects in it (DROP).
    UTF-8, with or without a byte order mark. Raises MezoError if the file cannot be read, is of
    another kind, breaks off, holds anything but objects, holds nothing, has a line of more than 16 MiB or
    (.json) more than 512 MiB, or is gzipped and comes to more than both 50 times its size and 64 MiB.
    """
    if not path.name.endswith(SUFFIXES):
        raise MezoError(f"{path}: expected a file name ending in {', '.join(SUFFIXES)}")
    with _reading(path) as file:
        if path.name.removesuffix(".gz").endswith(".jsonl"):
            rows = list(_from_lines(path, file))
        else:
            rows = list(_from_list(path, _whole(path, file)))
    if not rows:
        raise MezoError(f"{path}: expected at least one example, found none; give a file that is not empty")
    return rows


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked; what fails while they are read is a MezoError."""
    try:
        if (kind := kind_of(path)) is not None:
            raise MezoError(f"{path}: expected a file, found {kind}")
        if path.name.endswith(".gz"):
            _check_gzip(path)
            with gzip.open(path) as unpacked:
                yield unpacked  # pyright: ignore[reportReturnType]
        else:
            with path.open("rb") as file:
                yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise MezoError(
            f"{path}: expected a whole gzip file, found otherwise ({error}); make it anew"
        ) from None
    except OSError as error:
        raise MezoError(f"{path}: cannot be read: {error.strerror or error}") from None


def _check_gzip(path: Path) -> None:
    """A pass of its own, which holds a chunk: so a file that is torn, or no data, is that before any of its rows."""
    size = path.stat().st_size
    most, found = max(EXPANSION * size, ALWAYS), 0
    with gzip.open(path) as file:
        while chunk := file.read(_CHUNK):
            found += len(chunk)
            if found > most:
                raise MezoError(
                    f"{path}: expected {size:,} bytes of gzip to come to {most:,} at most, found more; if it is "
                    "data all the same, unpack it (gunzip)"
                )


def _whole(path: Path, file: BinaryIO) -> bytes:
    content = file.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        raise MezoError(
            f"{path}: expected at most {LARGEST_JSON:,} bytes of JSON, found more; with one object a line (.jsonl) a "
            "file may have any size"
        )
    return content


def _from_lines(path: Path, file: BinaryIO) -> Iterator[Row]:
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{path}:{number}"
        if len(line) > LONGEST_LINE:
            raise MezoError(f"{where}: expected a line of at most {LONGEST_LINE:,} bytes, found a longer one")
        text = _decoded(line.removesuffix(b"\n"), where, first=number == 1)
        if text.strip():
            yield Row(_object(_parsed(text, where), where), str(path), number, is_line=True)


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
        return json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, where))
    except json.JSONDecodeError as error:
        if "\r" in text.strip() and "\n" not in text.strip():
            raise MezoError(
                f"{where}: expected lines that end in a line feed, found bare carriage returns: save the file with "
                "Unix line ends"
            ) from None
        place = f"line {error.lineno} column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        reason = error.msg[0].lower() + error.msg[1:]
        raise MezoError(f"{where}: expected a JSON value, found broken JSON: {reason} ({place})") from None
    except MezoError:
        raise
    except (ValueError, RecursionError) as error:  # a number of too many digits; brackets nested too deep
        raise MezoError(f"{where}: expected a JSON value of ordinary size: {error}") from None


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """The object of these keys. JSON leaves it open which of two equal keys counts."""
    made = dict(pairs)
    if len(made) < len(pairs):
        key = next(key for n, (key, _) in enumerate(pairs) if key in dict(pairs[:n]))
        raise MezoError(
            f"{where}: expected each key once in an object, found {key!r:.60} twice: leave one out"
        )
    return made


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
