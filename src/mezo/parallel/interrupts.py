"""Ctrl-C and SIGTERM where several processes run in step: a signal to one ends all after the same step.

A process that receives a signal says so with its next losses, and only what all have heard counts, so nobody leaves
while another waits for its losses.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mezo.util.interrupts import Interrupts, Terminated

INTERRUPTED, TERMINATED = 1, 2


class Signals:
    """What this process received, and what all of them agreed on."""

    def __init__(self) -> None:
        self.asked = self.agreed = 0


class SharedInterrupts(Interrupts):
    """`Interrupts` of one process among several. A second signal forces nothing: torchrun forwards a Ctrl-C that the
    process already had, and kills what has not ended after 30 seconds.
    """

    def __init__(self, signals: Signals) -> None:
        super().__init__()
        self._signals = signals

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises KeyboardInterrupt (Terminated, for SIGTERM) at the end of the block if all agreed on it."""
        yield
        if self._signals.agreed:
            kind = Terminated if self._signals.agreed & TERMINATED else KeyboardInterrupt
            self._signals.agreed = 0
            raise kind

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signals.asked |= TERMINATED if number == signal.SIGTERM else INTERRUPTED
