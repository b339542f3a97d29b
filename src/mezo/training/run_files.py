"""The RUN folder of a run: begun or resumed, written step by step, and completed at the end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mezo.events import EvalRecord, Observer, StepRecord
from mezo.parallel.group import ProcessGroup
from mezo.resume.follower_ranks import follow, meet
from mezo.resume.plan import FreshRun, own_first
from mezo.resume.recorder import Recorder
from mezo.resume.session import Resume, going_on, take_up
from mezo.runs import event_log
from mezo.runs.result import TrainResult
from mezo.training.artifacts import leave
from mezo.training.monitors.measuring import Measuring


@dataclass(frozen=True)
class Destination:
    """Where a run is written, from what, and by whom."""

    output: Path | None  # the RUN folder; None writes nothing
    overwrite: bool
    artifacts: bool  # whether the end of the run writes weights, plots and a card
    resume: Resume | None
    group: ProcessGroup
    observer: Observer
    measuring: Measuring


class Start(NamedTuple):
    """Where a run begins in this process."""

    step: int  # the first one to do
    own: int  # the first one that a fork did not take over from its parent
    estimator_state: Any


class RunFiles:
    """Writes nothing: for a run without an output folder, and for every rank but the leader."""

    def step(self, values: Sequence[float], record: StepRecord) -> None: ...

    def evaluation(self, record: EvalRecord) -> None: ...

    def note(self, kind: str, /, **values: Any) -> None:
        """A line for RUN/events.jsonl."""

    def snapshot_is_due(self, done: int) -> bool:
        """After `done` steps."""
        return False

    def snapshot(self, estimator_state: Any) -> None: ...

    def save(self, result: TrainResult, estimator_state: Any, *, done: bool) -> None:
        """Write what the run leaves. done: whether it has come to its end, or was stopped before."""

    def close(self) -> None:
        """Close the files as they are."""


class WrittenFiles(RunFiles):
    """A `Recorder`'s files, and what the end of the run adds to them."""

    def __init__(self, recorder: Recorder, run: FreshRun, to: Destination) -> None:
        self._recorder, self._run, self._to = recorder, run, to

    def step(self, values: Sequence[float], record: StepRecord) -> None:
        self._recorder.step(values, record)

    def evaluation(self, record: EvalRecord) -> None:
        self._recorder.evaluation(record)

    def note(self, kind: str, /, **values: Any) -> None:
        self._recorder.note(kind, **values)

    def snapshot_is_due(self, done: int) -> bool:
        return self._recorder.snapshot_is_due(done)

    def close(self) -> None:
        self._recorder.close()

    def snapshot(self, estimator_state: Any) -> None:
        run = self._run
        if run.engine.holds_theta and self._recorder.keeps_snapshots:
            packed = run.engine.packed_state()
            self._recorder.snapshot(run.weights, estimator_state, run.config.optimizer, packed)

    def save(self, result: TrainResult, estimator_state: Any, *, done: bool) -> None:
        files, to = self._recorder, self._to
        files.sync()
        if result.terminated or files.walks:
            self.snapshot(estimator_state)
        if result.terminated:
            files.note("terminated", step=len(result.steps))
            return
        files.seal()
        with files.writing():
            leave(files.run, result, to.measuring, artifacts=to.artifacts, note=to.observer.on_note)
        if done:
            files.finished(len(result.steps))
        else:
            files.note("stopped", step=len(result.steps))


def open_files(to: Destination, run: FreshRun, result: TrainResult) -> tuple[RunFiles, Start]:
    """Begin or resume a run.

    Args:
        to: where it is written.
        run: taken to where a resumed run is.
        result: gets the steps and evaluations that a resumed run has done.

    Raises:
        MezoError: the folder cannot be written, or the run in it cannot be resumed.
    """
    if to.resume is not None:
        return _resume(to, to.resume, run, result)
    start = Start(0, 0, run.estimator.init())
    if to.output is None or not to.group.leads:
        return RunFiles(), start
    recorder = Recorder.begin(to.output, run.config, run.header, run.width, overwrite=to.overwrite)
    with recorder.closed_on_error():
        recorder.note("started", **_environment(to))
    result.trajectory = recorder.run.trajectory
    return WrittenFiles(recorder, run, to), start


def _resume(to: Destination, resume: Resume, run: FreshRun, result: TrainResult) -> tuple[RunFiles, Start]:
    recorder, tell = None, to.observer
    if to.group.leads:
        recorder, found, state = take_up(
            resume, run, note=tell.on_note, ready=lambda: meet(to.group), progress=tell.on_replay
        )
    else:
        found, state = follow(resume, run, ready=lambda: meet(to.group))
    result.steps, result.evals = list(found.steps), list(found.evals)
    result.seconds = math.fsum(r.seconds for r in (*found.steps, *found.evals))
    own = found.done if resume.fork or found.header is None else own_first(found.header)
    start = Start(found.done, own, state)
    if recorder is None:
        return RunFiles(), start
    with recorder.closed_on_error():
        going_on(recorder, start.step, _environment(to), tell.on_note)
    result.trajectory = recorder.run.trajectory
    return WrittenFiles(recorder, run, to), start


def _environment(to: Destination) -> dict[str, Any]:
    return event_log.environment(str(to.measuring.device))
