"""Ctrl-C between steps, never inside one: an update is applied and recorded, or neither."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """As a context manager it takes over SIGINT (in the main thread; elsewhere it does nothing).

    Inside `held()` an interrupt waits until the block is done; a second one does not.
    """

    def __init__(self) -> None:
        self._holding = self._asked = False

    def __enter__(self) -> "Interrupts":
        self._ours = threading.current_thread() is threading.main_thread()
        if self._ours:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises KeyboardInterrupt at the end of the block if one was asked for inside it."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._asked:
            self._asked = False
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._holding and not self._asked:
            self._asked = True
        else:
            raise KeyboardInterrupt
