"""The openai package's HTTP client, with bounds that it has not: of a whole answer, in time and in size.

Its time limit is for each single read, so an endpoint that sends a byte now and then would never end; and it unpacks
whatever a gzipped answer comes to.
"""

import contextlib
import threading
from importlib import import_module
from typing import Any

LONGEST = 64 << 20  # bytes of an answer; a model's longest have some hundred kilobytes


class Unbounded(Exception):
    """An answer that cannot be held; the text says how."""


def client(base: type[Any], seconds: float) -> Any:
    """A client of `base` (openai.DefaultHttpxClient, of whichever httpx the package uses).

    seconds: that a request may take, to the last byte of its answer; then it raises that httpx's own error, which
    the package tries again after. Raises Unbounded for an answer that is packed or too long.
    """
    httpx: Any = import_module(
        next(c.__module__ for c in base.__mro__ if "httpx" in c.__module__).partition(".")[0]
    )

    class Bounded(base):
        def send(self, request: Any, **options: Any) -> Any:
            outcome: list[Any] = []
            request.headers["Accept-Encoding"] = "identity"
            options["stream"] = True  # else the answer would be read in there

            def work() -> None:
                try:
                    outcome.append(_whole(super(Bounded, self).send(request, **options), request))
                except BaseException as error:
                    outcome.append(error)

            # a daemon: whoever ends the program does not wait for it, nor does this once the time is up
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join(seconds)
            if not outcome:
                with contextlib.suppress(Exception):
                    self.close()  # the next byte that comes ends the thread
                raise httpx.ReadTimeout(f"no whole answer within {seconds:g} s", request=request)
            if isinstance(outcome[0], BaseException):
                raise outcome[0]
            return outcome[0]

    return Bounded(timeout=seconds)


def _whole(response: Any, request: Any) -> Any:
    """The response with its content, which it had still to receive."""
    with contextlib.closing(response):
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Unbounded("a packed answer, which was not asked for")
        parts, size = [], 0
        for part in response.iter_raw():
            parts.append(part)
            size += len(part)
            if size > LONGEST:
                raise Unbounded(f"an answer of more than {LONGEST >> 20} MiB")
    return type(response)(
        response.status_code, headers=response.headers, content=b"".join(parts), request=request
    )
