"""A sink in a thread of its own: whatever it does, and however long it takes, the run goes on as without it."""

import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable

from mezo.events import EvalRecord, Observer, StepRecord
from mezo.sinks.base import Sink, SinkPoint
from mezo.sinks.numbers import of_evaluation, of_step
from mezo.util.parsing import one_line
from mezo.util.secrets import hidden

HELD = 100_000  # points that wait, at most
PATIENCE = 10.0  # seconds that the end of a run waits for the last of them
# A server may say again what it was sent, where a key is in base64, and an address may hold a password.
_CREDENTIALS = re.compile(r"(\b(?:basic|bearer)\s+)[^\s'\"},;]+|(://)[^/\s@]+(?=@)", re.IGNORECASE)


class Background(Observer):
    """Hands a run's records to a sink; reports the sink's first failure once, and then leaves it alone.

    name: for people. begin: an open sink, given (first step, number of steps).
    """

    def __init__(self, name: str, begin: Callable[[int, int], Sink], note: Callable[[str], None]) -> None:
        self._name, self._begin, self._note = name, begin, note
        self._points: queue.Queue[SinkPoint] = queue.Queue(HELD)
        self._ending = threading.Event()
        self._failed = self._told = False  # the run; of the sink's failure
        self._trouble: str | None = None
        self._thread: threading.Thread | None = None

    def on_start(self, first_step: int, num_steps: int, summary: str) -> None:
        self._thread = threading.Thread(
            target=self._work, args=(first_step, num_steps), name=f"mezo {self._name}", daemon=True
        )
        self._thread.start()

    def on_step(self, record: StepRecord) -> None:
        self._put(SinkPoint(record.step, time.time(), of_step(record)))

    def on_eval(self, record: EvalRecord) -> None:
        self._put(SinkPoint(record.step, time.time(), of_evaluation(record)))

    def close(self, *, failed: bool) -> None:
        """The run is over; what is left is written, for up to ten seconds. failed: by an error."""
        self._failed = failed
        self._ending.set()
        if self._thread is not None:
            self._thread.join(PATIENCE)
            if self._thread.is_alive():
                self._trouble = f"not done {PATIENCE:g} seconds after the run"
        self._tell()

    def _put(self, point: SinkPoint) -> None:
        if self._trouble is None and self._thread is not None:
            try:
                self._points.put_nowait(point)
            except queue.Full:
                self._trouble = "cannot keep up"
        self._tell()

    def _tell(self) -> None:
        """In the thread of the run, which is the one that people hear."""
        if self._trouble is not None and not self._told:
            self._told = True
            self._note(f"warning: {self._name}: {self._trouble}; the run goes on without it")

    def _work(self, first_step: int, num_steps: int) -> None:
        try:
            sink = self._begin(first_step, num_steps)
            while self._trouble is None:
                ending = self._ending.is_set()  # before taking: what comes after it, nobody puts
                if points := self._taken():
                    sink.write(points)
                if ending:
                    break
                self._ending.wait(sink.every)
            sink.close(failed=self._failed)
        except BaseException as error:  # SystemExit, too: these packages are not ours
            text = _CREDENTIALS.sub(lambda found: f"{found[1] or found[2]}***", hidden(one_line(error)))
            self._trouble = f"{type(error).__name__}: {text[:200]}"

    def _taken(self) -> list[SinkPoint]:
        points: list[SinkPoint] = []
        with contextlib.suppress(queue.Empty):
            while True:
                points.append(self._points.get_nowait())
        return points
