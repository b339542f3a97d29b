"""What a person sees while a run goes on: a live line in a terminal, plain lines anywhere else."""

import contextlib
import math
import resource
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from mezo.events import EvalRecord, Observer, StepRecord, token_reuse
from mezo.util.clock import due, since
from mezo.util.memory import peak_bytes
from mezo.util.parsing import printable

_WINDOW = 50  # steps behind the shown loss and speed
_PLAIN_SECONDS = 10.0  # between plain lines


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
        if not due(now := time.monotonic(), self._said, _PLAIN_SECONDS):
            return False
        self._said = now
        return True


class Pace:
    """Running figures of the last steps."""

    def __init__(self, first_step: int, num_steps: int) -> None:
        self.done, self.num_steps = first_step, num_steps
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._seconds: deque[float] = deque(maxlen=_WINDOW)
        self._asked = self._reused = 0
        self._saved = 0.0  # seconds

    def add(self, record: StepRecord) -> None:
        self.done = record.step + 1
        self._losses.append(record.loss)
        self._seconds.append(record.seconds)
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
        parts = (f"loss {self.loss:.4f}", speed, f"{duration(left)} left", self.reuse, memory())
        return "  ".join(part for part in parts if part)


class PlainObserver(Observer):
    """Lines for a log file: every evaluation, every note, and the pace every ten seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pace = Pace(0, 0)
        self._said = 0.0
        self._replaying = Replaying()

    def on_replay(self, done: int, steps: int) -> None:
        figures = self._replaying.figures(done, steps)
        if done < steps and self._replaying.is_due():
            self._say(f"replayed {done:,} of {steps:,} steps  {figures}")

    def on_start(self, first_step: int, num_steps: int, summary: str) -> None:
        self._pace = Pace(first_step, num_steps)
        self._said = time.monotonic()
        self._say(summary)

    def on_note(self, text: str) -> None:
        self._say(text)

    def on_step(self, record: StepRecord) -> None:
        self._pace.add(record)
        if due(now := time.monotonic(), self._said, _PLAIN_SECONDS):
            self._said = now
            self._say(f"step {self._pace.done}/{self._pace.num_steps}  {self._pace}")

    def on_eval(self, record: EvalRecord) -> None:
        self._say(describe(record))

    def _say(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)


class LiveObserver(Observer):
    """One line that is redrawn; evaluations and notes scroll above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar: TaskID | None = None
        self._pace = Pace(0, 0)
        self._headline = ""
        self._replaying = Replaying()

    def on_replay(self, done: int, steps: int) -> None:
        if not steps:
            return
        figures = self._replaying.figures(done, steps)
        if done == 0:
            self._bar = self._progress.add_task("", total=steps, figures="replaying")
        elif self._bar is not None:
            self._progress.update(self._bar, completed=done, figures=f"replayed  {figures}")
        if done == steps and self._bar is not None:
            self._progress.remove_task(self._bar)  # the run's own takes its place
            self._bar = None

    def on_start(self, first_step: int, num_steps: int, summary: str) -> None:
        self._pace = Pace(first_step, num_steps)
        self._write(summary)
        self._bar = self._progress.add_task("", total=num_steps, completed=first_step, figures="")

    def on_note(self, text: str) -> None:
        self._write(text)

    def on_step(self, record: StepRecord) -> None:
        self._pace.add(record)
        if self._bar is not None:
            self._progress.update(
                self._bar, completed=self._pace.done, figures=f"{self._headline}{self._pace}"
            )

    def on_eval(self, record: EvalRecord) -> None:
        if record.headline is not None:
            self._headline = f"{record.headline.name} {record.headline}  "
        self._write(describe(record))

    def _write(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def observer_for(stream: TextIO) -> Iterator[Observer]:
    """The live line where `stream` is a terminal, else plain lines."""
    if not stream.isatty():
        yield PlainObserver(stream)
        return
    columns = (
        TextColumn("{task.completed:.0f}/{task.total:.0f}", table_column=Column(no_wrap=True, min_width=11)),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    # Four redraws a second: each is work taken from the step under way.
    with Progress(*columns, console=Console(file=stream), refresh_per_second=4) as progress:
        yield LiveObserver(progress)


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
