"""Clocks that stand still, leap and go back, the wall's and the monotonic one: the run is the same to the byte, and
no figure made of times is negative, divided by nothing, or a reason to end."""

import io
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.resumed import Copying, base, config_for, copy, resume, trainer, what_counts

from mezo.ablation.run.training import time_one
from mezo.cli.progress import PlainObserver
from mezo.errors import MezoError
from mezo.events import StepRecord
from mezo.resume import recorder
from mezo.runs import event_log
from mezo.runs.metrics_file import read_metrics
from mezo.runs.pace import Pace
from mezo.sinks import Several, logging_to
from mezo.sinks.numbers import of_step
from mezo.util.clock import due, measured, since

DAY = 86_400.0
drawn = random.Random(7)
CLOCKS: dict[str, Callable[[int], float]] = {  # seconds at the nth look
    "still": lambda n: 5e8,
    "ahead": lambda n: DAY * n,
    "back": lambda n: 1e9 - DAY * n,
    "any": lambda n: 5e8 + drawn.uniform(-1, 1) * 10 ** drawn.uniform(-9, 8),
}


def set_clocks(patch: pytest.MonkeyPatch, clock: Callable[[int], float]) -> None:
    looks: Iterator[int] = iter(range(10**9))
    form, at = time.strftime, time.gmtime
    for name in ("time", "monotonic", "perf_counter"):
        patch.setattr(time, name, lambda: clock(next(looks)))
    # the years that a file's name and a line of a log can hold
    patch.setattr(time, "strftime", lambda text: form(text, at(clock(next(looks)) % (1000 * 365 * DAY))))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """The model, the run as it is after its 5th step, and what it comes to: by clocks that go on as they should."""
    folder = tmp_path_factory.mktemp("clock")
    config = config_for(base(folder / "base"), snapshot_every=None)
    run, left = folder / "run", folder / "left"
    ended = trainer(config, output=run, observer=Copying(run, left, (5,))).train()
    return folder / "base", left / "5", what_counts(run, ended)


@pytest.mark.parametrize("name", CLOCKS)
def test_a_run_by_another_clock(
    name: str, whole: tuple[Path, Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, expected = whole[0], whole[2]
    left = copy(whole[1], tmp_path / "left")
    config, run, said, notes = config_for(model, snapshot_every=None), tmp_path / "run", io.StringIO(), []
    prometheus = tmp_path / "metrics.prom"
    monkeypatch.setattr(recorder, "EVERY_STEPS", 4)
    set_clocks(monkeypatch, CLOCKS[name])
    with logging_to([], run=run, config=config, metrics_file=prometheus, note=notes.append) as logs:
        observer = Several(PlainObserver(said), logs)
        result = trainer(config, output=run, observer=observer, profile=True).train()
    resumed = resume(left, observer=PlainObserver(said))  # on a machine that has run for less long, or longer
    monkeypatch.undo()
    found = {**what_counts(run, result), "files": None}  # which has the profile's, too
    assert found == {**expected, "files": None}
    assert what_counts(left, resumed) == expected
    assert notes == []
    for folder, ended in ((run, result), (left, resumed)):
        metrics = read_metrics(folder / "metrics.jsonl")
        seconds = [record.seconds for record in (*metrics.steps, *metrics.evals)]
        spans = [v for record in metrics.steps for v in (record.profile or {}).values()]
        assert all(0 <= value < math.inf for value in (*seconds, *spans, ended.seconds))
    assert [line["event"] for line in event_log.read(run / "events.jsonl")] == ["started", "finished"]
    times = [line["time"] for line in event_log.read(left / "events.jsonl")]
    assert len(times) == 3
    assert name != "back" or times[1] > times[2]  # told as the clock had them
    assert "mezo_steps_total 12.0" in prometheus.read_text()
    assert not any(f" {sign}" in said.getvalue() for sign in ("-", "nan", "inf"))


def test_a_snapshot_after_a_leap_either_way(
    whole: tuple[Path, Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows how long it has been: one is written, and time is counted from there."""
    assert due(899.0, 0.0, 900.0) is False
    assert due(900.0, 0.0, 900.0)
    assert due(-1.0, 0.0, 900.0)
    now, written = [DAY], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(recorder.snapshots, "write", lambda *parts: written.append(parts[-1].step))

    class Leaping(PlainObserver):
        def on_step(self, record: StepRecord) -> None:
            now[0] += {3: 2 * DAY, 7: -9 * DAY}.get(record.step, 0)

    config = config_for(whole[0], snapshot_every=None)
    trainer(config, output=tmp_path / "run", observer=Leaping(io.StringIO())).train()
    assert written == [4, 8]


@pytest.mark.parametrize("seconds", [0.0, -5.0, 1e9, 1e-9])
def test_the_figures_of_any_time(seconds: float) -> None:
    record = StepRecord(0, 1.0, 1e-3, (0.5,), seconds, 100)
    assert 0 <= of_step(record)["train/tokens_per_second"] < math.inf
    pace = Pace(0, 10)
    assert "? left" in str(pace)
    pace.add(record)
    assert f"{9 * seconds / 3600:.1f} h left" in str(pace) if seconds > 1e6 else " s left" in str(pace)


def test_no_plan_is_made_by_a_clock_that_stands_still(
    whole: tuple[Path, Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measured(0.5, "a step") == 0.5
    config = config_for(whole[0], task="demo")
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    assert since(7.0) == 0
    with pytest.raises(MezoError, match=r"^a step took 0 seconds by this machine's clock, which was set"):
        time_one(config, 0, 0.0)
