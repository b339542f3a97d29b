"""One process at a time writes a RUN: a lock that the kernel releases when its holder dies.

`flock` on RUN/.lock. The file names the holder for people; a stale file blocks nobody. On NFS it works between
machines if the server's lock service does, and not on mounts with `nolock` or `local_lock`.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Self

from mezo.errors import MezoError
from mezo.util.parsing import parse_json

NAME = ".lock"


class RunLock:
    """Held from `take` to `release`, or to the death of the process."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path, self._handle = path, handle

    @classmethod
    def take(cls, folder: Path) -> Self:
        """Lock an existing folder.

        Raises MezoError, naming the holder, if another process (or another trainer of this one) has it, or if the
        file system has no locks.
        """
        path = folder / NAME
        while True:
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            except OSError as error:
                why = "it is a link; remove it" if error.errno == errno.ELOOP else error.strerror
                raise MezoError(f"{path}: cannot lock the run: {why}") from None
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held_by = _holder(handle)
                os.close(handle)
                raise MezoError(
                    f"{folder}: {held_by} is writing in this folder; wait until it ends, or end it first"
                ) from None
            except OSError as error:
                os.close(handle)
                raise MezoError(f"{path}: this file system cannot lock: {error.strerror}") from None
            if _is_there(path, handle):
                break
            os.close(handle)  # its last holder has removed it between our opening and our locking it
        with contextlib.suppress(OSError):  # a full disk: the lock holds, unsigned
            os.ftruncate(handle, 0)
            os.pwrite(handle, _signature(), 0)
        return cls(path, handle)

    @classmethod
    def check(cls, folder: Path) -> None:
        """Raises MezoError, as `take` does, if the folder could not be locked now."""
        if (folder / NAME).exists():
            cls.take(folder).release()

    def release(self) -> None:
        """Remove the file while it is still ours, then let go. A second call does nothing."""
        if self._handle < 0:
            return
        with contextlib.suppress(OSError):
            if _is_there(self.path, self._handle):
                self.path.unlink()
        os.close(self._handle)
        self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def _is_there(path: Path, handle: int) -> bool:
    """Whether the open file is the one that has the name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _signature() -> bytes:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode() + b"\n"


def _holder(handle: int) -> str:
    try:
        found = parse_json(os.pread(handle, 4096, 0))
        return f"process {int(found['pid'])} on {found['host']} (since {found['since']})"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"  # it has not signed yet, or could not
