"""What is shown while a run goes on."""

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from mezo.cli import progress
from mezo.cli.progress import LiveObserver, PlainObserver, observer_for
from mezo.events import EvalRecord, StepRecord
from mezo.runs.pace import Pace, describe, duration, memory

EVAL = EvalRecord(0, "validation", 0.535, 1.04, 200, 3.0)


def step(number: int, loss: float, seconds: float = 0.5) -> StepRecord:
    return StepRecord(number, loss, 1e-6, (1.0,), seconds, 10)


def test_pace_is_the_mean_of_the_last_fifty_steps() -> None:
    pace = Pace(0, 200)
    for i in range(100):
        pace.add(step(i, loss=0.0 if i < 50 else 2.0, seconds=9.0 if i < 50 else 0.25))
    assert pace.loss == 2.0
    assert str(pace).startswith("loss 2.0000  4.0 steps/s  25 s left  ")


def test_slow_steps_are_told_in_seconds() -> None:
    pace = Pace(0, 3)
    pace.add(replace(step(0, 1.0, seconds=40.0), tokens=48_000))
    assert "40.0 s/step  1,200 tokens/s  80 s left" in str(pace)


def test_reuse_is_shown_from_the_first_token_on() -> None:
    pace = Pace(0, 100)
    pace.add(step(0, 1.0))
    assert "reuse" not in str(pace)
    pace.add(
        StepRecord(1, 1.0, 1e-6, (1.0,), 0.5, 100, tokens_asked=400, tokens_reused=300, seconds_saved=0.2)
    )
    assert "49 s left  reuse 75 %  " in str(pace)  # too little time to speak of
    pace.add(
        StepRecord(2, 1.0, 1e-6, (1.0,), 0.5, 0, tokens_asked=600, tokens_reused=600, seconds_saved=11.8)
    )
    assert "48 s left  reuse 90 %, saved 12 s  " in str(pace)


def test_before_the_first_step_nothing_is_known() -> None:
    assert math.isnan(Pace(0, 10).loss)
    assert "? left" in str(Pace(0, 10))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h"), (math.nan, "?")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_memory_is_that_of_this_process() -> None:
    value, unit = memory().split()[:2]
    assert unit == "GiB"
    assert 0.05 < float(value) < 100  # torch alone is more than the one; no test machine has the other


def test_evaluations_in_words() -> None:
    assert describe(EVAL) == "step 0: validation  accuracy 53.5 %  loss 1.0400  (200 examples)"
    assert describe(EvalRecord(5, "test", None, 0.5, 1, 1.0)) == "step 5: test  loss 0.5000  (1 examples)"


def test_plain_lines_come_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 11.0, 12.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    observer = PlainObserver(stream)
    observer.on_start(0, 3, "a summary")
    for i in range(3):
        observer.on_step(step(i, 0.7))
    observer.on_eval(EVAL)
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["a summary", "step 2/3", "step 0: validation"]


def test_a_replay_is_told_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.0, 104.0, 104.0, 111.0, 111.0, 140.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    observer = PlainObserver(stream)
    for done in (0, 4, 11, 40):
        observer.on_replay(done, 40)
    assert stream.getvalue().splitlines() == ["replayed 11 of 40 steps  1.0 s/step  29 s left"]


def test_the_live_line_shows_the_figures() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=160, color_system=None)
    columns = (
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console) as bar:
        observer = LiveObserver(bar)
        observer.on_note("[bold]not markup[/bold]")
        observer.on_replay(0, 2)
        observer.on_replay(1, 2)
        bar.refresh()
        observer.on_replay(2, 2)
        observer.on_start(0, 4, "a summary")
        observer.on_eval(EVAL)
        observer.on_step(step(0, 0.7))
    shown = stream.getvalue()
    assert "[bold]not markup[/bold]" in shown
    assert "1/2" in shown
    assert "replayed  " in shown
    assert "a summary" in shown
    assert "1/4" in shown
    assert "accuracy 53.5 %  loss 0.7000  2.0 steps/s" in shown


def test_a_file_gets_plain_lines_and_a_terminal_the_live_one() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with observer_for(io.StringIO()) as observer:
        assert isinstance(observer, PlainObserver)
    with observer_for(Terminal()) as observer:
        assert isinstance(observer, LiveObserver)
