"""Files that are replaced whole or not at all, and errors of the system in its own words."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, renamed to it if the block ends well: never half a file."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.umask(mask := os.umask(0))  # the only way to read it is to set it
        temporary.chmod(0o666 & ~mask)  # mkstemp's 0600 is for secrets
        os.replace(temporary, path)
        sync_folder(path.parent)  # the name too must outlive a loss of power
    finally:
        temporary.unlink(missing_ok=True)


def sync_files(folder: Path) -> None:
    """On return the files in the folder, and their names, survive a loss of power."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def sync_folder(path: Path) -> None:
    """On return the names in the folder, as they are now, survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `path` whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def system_error(error: Exception) -> OSError | None:
    """The system's error that this one tells of; None if it tells of none."""
    if isinstance(error, OSError):
        return error
    found = re.search(r"\(os error (\d+)\)", str(error))  # as libraries in Rust say it
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def reason(error: Exception) -> str:
    """Why something could not be read or written, on one line: the system's own words where it was the system."""
    found = system_error(error)
    return found.strerror if found and found.strerror else " ".join(str(error).split())


def write_all(file: FileIO, data: bytes) -> None:
    """Write to an unbuffered file all of `data`: the system may take a part at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
