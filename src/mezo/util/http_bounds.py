"""HTTP answers bounded as a whole, in time and in size, for any httpx-like client.

A client's own time limit is for each read, so a server that sends a byte now and then never exceeds it; and size has
no limit.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

LONGEST = 1 << 28  # bytes of an answer; a step of 64 rows of 2,000 tokens has some 10 MB


class Unbounded(Exception):
    """An answer that cannot be held; the text says how."""


class TimeUp(Exception):
    """No whole answer in time. begun: whether its headers had come."""

    def __init__(self, *, begun: bool):
        super().__init__()
        self.begun = begun


def whole(
    send: Callable[[Any], Any], request: Any, seconds: float, *, longest: int, abandon: Callable[[], object]
) -> Any:
    """The response to `request`, with its content.

    send: sends it and returns a streaming response. seconds: to the last byte; then `abandon` is called, which closes
    the connection and so ends the waiting thread. Raises TimeUp, Unbounded, or what `send` does.
    """
    outcome: list[Any] = []
    begun = threading.Event()
    request.headers["Accept-Encoding"] = "identity"

    def work() -> None:
        try:
            response = send(request)
            begun.set()
            outcome.append(_received(response, request, longest))
        except BaseException as error:
            outcome.append(error)

    # a daemon: whoever ends the program does not wait for it, nor does this once the time is up
    thread = threading.Thread(target=work, daemon=True, name="an HTTP answer")
    thread.start()
    thread.join(seconds)
    if not outcome:
        with contextlib.suppress(Exception):
            abandon()  # the next byte that comes ends the thread
        raise TimeUp(begun=begun.is_set())
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _received(response: Any, request: Any, longest: int) -> Any:
    with contextlib.closing(response):
        if response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
            raise Unbounded("a packed answer, which was not asked for")
        parts, size = [], 0
        for part in response.iter_raw():
            parts.append(part)
            size += len(part)
            if size > longest:
                raise Unbounded(f"an answer of more than {longest >> 20} MiB")
    return type(response)(
        response.status_code, headers=response.headers, content=b"".join(parts), request=request
    )
