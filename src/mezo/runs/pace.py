"""How far a run is: its pace, its latest figures, in words for people."""

import math
import resource
import time
from collections import deque
from pathlib import Path

from mezo.events import EvalRecord, StepRecord, token_reuse
from mezo.util.clock import due, since
from mezo.util.memory import peak_bytes

_WINDOW = 50  # steps behind the shown loss and speed
SECONDS_BETWEEN_LINES = 10.0  # where nothing is redrawn


class Replaying:
    """How fast steps are made again, and how long the rest will take."""

    def __init__(self) -> None:
        self._began = self._said = 0.0

    def figures(self, done: int, steps: int) -> str:
        """Of the steps since the call with `done` 0."""
        if done == 0:
            self._began = self._said = time.monotonic()
            return ""
        pace = since(self._began) / done
        speed = f"{1 / pace:,.1f} steps/s" if 0 < pace < 1 else f"{pace:.1f} s/step"
        return f"{speed}  {duration(pace * (steps - done))} left"

    def is_due(self) -> bool:
        """Whether the last line is ten seconds old."""
        if not due(now := time.monotonic(), self._said, SECONDS_BETWEEN_LINES):
            return False
        self._said = now
        return True


class Pace:
    """Running figures of the last steps."""

    def __init__(self, first_step: int, num_steps: int) -> None:
        self.done, self.num_steps = first_step, num_steps
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._seconds: deque[float] = deque(maxlen=_WINDOW)
        self._tokens: deque[int] = deque(maxlen=_WINDOW)
        self._asked = self._reused = 0
        self._saved = 0.0  # seconds

    def add(self, record: StepRecord) -> None:
        self.done = record.step + 1
        self._losses.append(record.loss)
        self._seconds.append(record.seconds)
        self._tokens.append(record.tokens)
        self._asked += record.tokens_asked
        self._reused += record.tokens_reused
        self._saved += record.seconds_saved

    @property
    def loss(self) -> float:
        return sum(self._losses) / len(self._losses) if self._losses else math.nan

    @property
    def seconds_per_step(self) -> float:
        return sum(self._seconds) / len(self._seconds) if self._seconds else math.nan

    @property
    def reuse(self) -> str:
        """What reuse has come to since the start; nothing where there was none."""
        if self._reused <= 0:
            return ""
        saved = f", saved {duration(self._saved)}" if self._saved >= 0.5 else ""
        return f"reuse {100 * token_reuse(self._asked, self._reused):.0f} %{saved}"

    def __str__(self) -> str:
        pace, left = self.seconds_per_step, (self.num_steps - self.done) * self.seconds_per_step
        speed = f"{1 / pace:.1f} steps/s" if 0 < pace < 1 else f"{pace:.1f} s/step"
        # of steps that take a while, as those that write text do
        tokens = f"{sum(self._tokens) / sum(self._seconds):,.0f} tokens/s" if pace >= 1 else ""
        parts = (f"loss {self.loss:.4f}", speed, tokens, f"{duration(left)} left", self.reuse, memory())
        return "  ".join(part for part in parts if part)


def describe(record: EvalRecord) -> str:
    judged = f"{record.headline.name} {record.headline}  " if record.headline else ""
    return f"step {record.step}: {record.split}  {judged}loss {record.loss:.4f}  ({record.examples} examples)"


def duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def memory() -> str:
    """The resident memory of this process now, or its peak where only that is available."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return f"{int(statm.read_text().split()[1]) * resource.getpagesize() / 2**30:.2f} GiB"
    return f"{peak_bytes() / 2**30:.2f} GiB peak"
