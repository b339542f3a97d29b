"""Ctrl-C and SIGTERM between steps, never inside one: an update is applied and recorded, or neither."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 143  # the exit status: 128 + SIGTERM, as a shell has it


class Terminated(KeyboardInterrupt):
    """SIGTERM: the machine is wanted back, soon."""


class Forced(KeyboardInterrupt):
    """An interrupt that did not wait: what was under way is half done."""


class Interrupts:
    """As a context manager it handles SIGINT and SIGTERM (in the main thread; elsewhere it does nothing).

    Inside `held()` an interrupt waits until the block is done; a second one does not, and is `Forced`. An ignored
    SIGTERM stays ignored.
    """

    def __init__(self) -> None:
        self._holding = False
        self._asked: type[KeyboardInterrupt] | None = None

    def __enter__(self) -> "Interrupts":
        self._ours = threading.current_thread() is threading.main_thread()
        self._before = {}
        if self._ours:
            for number in (signal.SIGINT, signal.SIGTERM):
                if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises KeyboardInterrupt (Terminated, for SIGTERM) at the end of the block if one was asked for
        inside it."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._asked:
            asked, self._asked = self._asked, None
            raise asked

    def _handle(self, number: int, frame: FrameType | None) -> None:
        kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if not self._holding:
            if _native or _compiling(frame):  # again in a moment
                again = threading.Timer(0.02, os.kill, (os.getpid(), number))
                again.daemon = True
                again.start()
                return
            raise kind
        if self._asked:
            raise Forced
        self._asked = kind


_native = 0  # blocks of `in_native_code` that are under way


@contextmanager
def in_native_code() -> Iterator[None]:
    """Inside the block `Interrupts` wait: for short calls of libraries that call Python back.

    safetensors turns a signal's exception into a ValueError about a tensor's shape.
    """
    global _native
    _native += 1
    try:
        yield
    finally:
        _native -= 1


def _compiling(frame: FrameType | None) -> bool:
    """Whether Numba compiles. LLVM calls Python back: an exception there is lost, or the process dies of SIGSEGV."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(("numba.", "llvmlite.")):
            return True
        frame = frame.f_back
    return False
