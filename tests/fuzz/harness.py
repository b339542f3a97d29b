"""Cases one by one: each ends in a value or a MezoError, before long, and in proportionate memory."""

import contextlib
import json
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from mezo.errors import MezoError
from mezo.util.memory import peak_bytes

T = TypeVar("T")
MEMORY = 256 << 20  # bytes more than before, at most; the files are of a few kilobytes
_SECONDS = 20.0  # of this process's own time: a case takes milliseconds


def dumped(value: Any) -> bytes:
    """As Python writes JSON: NaN and half a surrogate pair included, which its reader takes."""
    return json.dumps(value).encode()


def survive(cases: Iterable[T], read: Callable[[T], Any], *, also: tuple[type[Exception], ...] = ()) -> int:
    """How many cases were run. also: what else the reader says that it raises."""
    before, done = peak_bytes(), 0
    for case in cases:
        try:
            with _no_hang():
                read(case)
        except (MezoError, *also):
            pass
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise AssertionError(f"{type(error).__name__}: {error!s:.300}\n{case!r:.500}") from error
        done += 1
    assert peak_bytes() - before < MEMORY
    return done


class Hang(BaseException):
    """A case does not end. Nothing that catches Exception takes it for its own."""


@contextlib.contextmanager
def _no_hang() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise Hang(f"no end after {_SECONDS:g} seconds of work")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
