"""A pipe to another process, read and written until a moment in time, or until that process is dead."""

import select
import subprocess
import time
from typing import BinaryIO

_TICK = 0.5  # seconds between looks at whether the other process is alive
_PIECE = 1 << 20  # bytes at a time: what a message claims to have is not set aside before it comes


class Patient:
    """Both ends that are this process's, which do not block. until: by time.monotonic(), of a whole exchange.

    Every method raises TimeoutError when the time is up, however much has come or gone by then.
    """

    def __init__(self, reads: BinaryIO, writes: BinaryIO, until: float, other: "subprocess.Popen[bytes]"):
        self._reads, self._writes, self._until, self._other = reads, writes, until, other

    def read(self, size: int) -> bytes:
        """`size` bytes; fewer if the other process closed its end or died."""
        parts: list[bytes] = []
        while size > 0:
            ready, _, _ = select.select([self._reads], [], [], self._wait())
            part = self._reads.read(min(size, _PIECE)) if ready else None
            if part:
                parts.append(part)
                size -= len(part)
            elif ready or self._other.poll() is not None:
                break
        return b"".join(parts)

    def write(self, data: bytes | memoryview) -> None:
        """All of it. Raises OSError if nobody reads any more."""
        left = memoryview(data)  # of bytes; an empty tensor's could not be cast to them
        while left:
            _, ready, _ = select.select([], [self._writes], [], self._wait())
            if ready:
                left = left[self._writes.write(left[:_PIECE]) or 0 :]
            elif self._other.poll() is not None:
                raise BrokenPipeError

    def flush(self) -> None:
        """Nothing is held back here."""

    def _wait(self) -> float:
        """Seconds to the next look. Raises TimeoutError if the time is up."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(_TICK, left)
