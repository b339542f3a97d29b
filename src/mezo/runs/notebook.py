"""A run in a notebook: one cell output that is redrawn while it goes on, and at the end a picture of the run."""

import html
import sys
import time
from typing import Any

from mezo.events import EvalRecord, Observer, StepRecord, WarningObserver
from mezo.runs.metrics_file import Metrics
from mezo.runs.pace import Pace, Replaying, describe
from mezo.util.clock import due

_SECONDS = 0.5  # between two drawings


def in_notebook() -> bool:
    """Whether this code runs in a notebook's kernel, which shows HTML and pictures."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def default_observer() -> Observer:
    """Who hears of a run that nobody was named for."""
    return NotebookObserver() if in_notebook() else WarningObserver()


class NotebookObserver(Observer):
    """Shows a run in the cell that started it."""

    def __init__(self) -> None:
        self._pace, self._seen = Pace(0, 0), Metrics([], [])
        self._lines: list[str] = []
        self._figures = ""
        self._drawn = 0.0
        self._handle: Any = None
        self._replaying = Replaying()

    def on_start(self, first_step: int, num_steps: int, summary: str) -> None:
        self._pace = Pace(first_step, num_steps)
        self.on_note(summary)

    def on_note(self, text: str) -> None:
        self._lines.append(text)
        self._draw()

    def on_replay(self, done: int, steps: int) -> None:
        self._figures = f"replayed {done:,} of {steps:,} steps  {self._replaying.figures(done, steps)}"
        if done == steps or due(time.monotonic(), self._drawn, _SECONDS):
            self._draw()

    def on_step(self, record: StepRecord) -> None:
        self._pace.add(record)
        self._seen.steps.append(record)
        self._figures = f"{self._pace.done:,} / {self._pace.num_steps:,}  {self._pace}"
        if due(time.monotonic(), self._drawn, _SECONDS):
            self._draw()

    def on_eval(self, record: EvalRecord) -> None:
        self._seen.evals.append(record)
        self._lines.append(describe(record))
        self._draw()

    def on_end(self) -> None:
        from IPython.display import Image, display

        from mezo.runs.plots import overview_png

        self._draw()
        picture = overview_png(self._seen)
        if picture is not None:
            display(Image(data=picture, width=960))

    def _draw(self) -> None:
        from IPython.display import HTML, display

        self._drawn = time.monotonic()
        share = self._pace.done / self._pace.num_steps if self._pace.num_steps else 0.0
        bar = (
            f"<progress value='{share:.4f}' max='1' style='width:20em'></progress> " if self._figures else ""
        )
        text = html.escape("\n".join([*self._lines, self._figures]).rstrip())
        shown = HTML(f"{bar}<pre style='white-space:pre-wrap'>{text}</pre>")
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)
