"""An answer that has to be there by one moment, to its last byte.

A socket's own time limit is for each single read, so a server that sends a byte now and then, or "100 Continue" for
ever, keeps within it without an end. (Sending and the handshake of TLS are bounded as a whole by the socket.)
"""

import io
import socket
import time
from typing import Any


class Timely:
    """A connected socket as `http.client` uses one, whose reads share a deadline.

    until: by time.monotonic(). A read past it raises TimeoutError. begun: whether anything was read.
    """

    def __init__(self, sock: socket.socket, until: float):
        self._sock, self._until = sock, until
        self.begun = False

    def makefile(self, _mode: str) -> io.BufferedReader:
        """For reading, which is all that `http.client` asks for."""
        return io.BufferedReader(_Reader(self, self._sock.makefile("rb", buffering=0)))

    def allow(self) -> None:
        """Let the next read take what is left. Raises TimeoutError if nothing is."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Reader(io.RawIOBase):
    def __init__(self, timely: Timely, raw: Any):
        self._timely, self._raw = timely, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._timely.allow()
        size = self._raw.readinto(buffer)
        self._timely.begun = True
        return size

    def close(self) -> None:
        self._raw.close()  # it holds the connection open until the answer is read
        super().close()
