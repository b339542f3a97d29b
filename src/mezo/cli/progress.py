"""What a person sees while a run goes on: a live line in a terminal, plain lines anywhere else."""

import contextlib
import time
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from mezo.events import EvalRecord, Observer, StepRecord
from mezo.runs.pace import SECONDS_BETWEEN_LINES, Pace, Replaying, describe
from mezo.util.clock import due
from mezo.util.parsing import printable


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
        if due(now := time.monotonic(), self._said, SECONDS_BETWEEN_LINES):
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
