"""A server that never ends what it sends, on this machine, over real HTTP."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HEADERS = b"HTTP/1.1 200 OK\r\n"
SHAPES = {  # what comes at once, and what comes again and again
    "nothing": (b"", b""),
    "a status line": (b"", b"H"),
    "headers": (HEADERS + b"X: ", b"x"),
    "a hundred-continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body": (HEADERS + b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n", b" "),
    "chunks": (
        HEADERS + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\n \r\n",
    ),
}


@contextmanager
def trickling(shape: str, *, every: float = 0.02) -> Iterator[str]:
    """The address, without a path, of a server that answers everything in this shape, a little every so many seconds."""
    first, then = SHAPES[shape]
    ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):  # who asked has gone
            connection.recv(1 << 16)
            connection.sendall(first)
            while not ended.wait(every):
                connection.sendall(then)

    def accept() -> None:
        with suppress(OSError):  # closed
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes `accept`
