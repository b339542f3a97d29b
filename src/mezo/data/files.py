"""Reading files of rows, packed by gzip or not, with errors that name the file and the line.

What is held is the rows and one line, however long the file: it may be other people's, and made to fill the memory.
"""

import contextlib
import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mezo.data.formats import FORMATS
from mezo.errors import MezoError
from mezo.tasks import Row
from mezo.util.foreign import kind_of
from mezo.util.plugins import choices, find

SUFFIXES = tuple(suffix + packed for suffix in choices("data_format") for packed in ("", ".gz"))
# Gzip makes a thousandth of what repeats itself, and text comes to 3 to 20 times its compressed size: a small file
# that would come to more than this is no data.
EXPANSION, ALWAYS = 50, 64 << 20  # times the file's size; bytes
_CHUNK = 1 << 20


def read_rows(path: Path, data_format: str | None = None) -> Sequence[Row]:
    """The rows of a file of one of the FORMATS or a plugin's, which may be gzipped. Rows of a table stay in it until asked for.

    data_format: its name, where the file's does not end in it.

    JSON Lines: one object a line, blank lines between them allowed. JSON: one list of objects, or an
    object with the list under "data" (as SQuAD has it) or with nothing but objects in it (DROP).
    UTF-8, with or without a byte order mark. Raises MezoError if the file cannot be read, is of
    another kind, breaks off, holds anything but objects, holds nothing, has a line of more than 16 MiB or
    (.json) more than 512 MiB, or is gzipped and comes to more than both 50 times its size and 64 MiB.
    """
    if data_format is None and not path.name.endswith(SUFFIXES):
        raise MezoError(f"{path}: expected a file name ending in {', '.join(SUFFIXES)}")
    with _reading(path) as file:
        plain = path.name.removesuffix(".gz")
        name = data_format or next(each for each in choices("data_format") if plain.endswith(each))
        read, settings = find("data_format", name, FORMATS)
        found = read(path, file, **settings)
        rows = found if isinstance(found, Sequence) else list(_as_rows(found, path))
    if not len(rows):
        raise MezoError(f"{path}: expected at least one example, found none; give a file that is not empty")
    return rows


def _as_rows(found: Iterable[Row | Mapping[str, Any]], path: Path) -> Iterator[Row]:
    """A plugin may give plain mappings."""
    for number, each in enumerate(found, start=1):
        yield each if isinstance(each, Row) else Row(each, str(path), number)


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
