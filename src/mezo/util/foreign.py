"""Small files from other people, read with bounds: a pipe may never end, and a sparse file may have any size."""

import stat
from pathlib import Path
from typing import BinaryIO

from mezo.errors import MezoError

MOST = 16 << 20  # bytes: of settings, a task or an adapter's description, a thousand times what they have
_AT_ONCE = 1 << 20
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def kind_of(path: Path) -> str | None:
    """What it is, or is a link to, if no file: "a folder", "a pipe", "a device" ... Raises OSError if it is not
    there.
    """
    kind = stat.S_IFMT(path.stat().st_mode)
    return None if kind == stat.S_IFREG else _KINDS.get(kind, "a device")


def check_folder(path: Path, what: str) -> None:
    """Raises MezoError if a file is in the place of the output folder. what: is to be put there."""
    if path.exists() and not path.is_dir():
        raise MezoError(f"{path}: expected a folder for the {what}, found a file; choose another --output")


def read_at_most(file: BinaryIO, most: int) -> bytes:
    """The bytes that are left, and no more than `most`: bit by bit, since a single read sets aside room for all of them."""
    parts, left = [], most
    while left and (part := file.read(min(left, _AT_ONCE))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def read_text(path: Path, *, most: int = MOST, pipe: bool = False) -> str:
    """The text of a file of at most `most` bytes. pipe: allow a pipe, as a shell's <(command) is.

    Raises OSError if it cannot be read, ValueError if it is no such file or not UTF-8.
    """
    kind = kind_of(path)
    if kind is not None and not (pipe and kind == "a pipe"):
        raise ValueError(f"expected a file, found {kind}")
    with path.open("rb") as file:
        data = read_at_most(file, most + 1)
    if len(data) > most:
        raise ValueError(f"expected at most {most:,} bytes, found more")
    return data.decode("utf-8")
