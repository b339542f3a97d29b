"""The RUN folder of a run: begun or resumed, written step by step, and completed at the end."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mezo.events import Observer
from mezo.parallel.group import ProcessGroup
from mezo.resume.plan import FreshRun, own_first
from mezo.resume.recorder import Recorder, RunFiles
from mezo.resume.session import Resume, follow, going_on, meet, take_up
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


def save_files(
    files: RunFiles, to: Destination, result: TrainResult, estimator_state: Any, *, done: bool
) -> None:
    """Write what the run leaves. done: whether it has come to its end, or was stopped before."""
    if not isinstance(files, Recorder):
        return
    files.sync()
    if files.keeps_snapshots and (result.terminated or files.walks):
        files.snapshot(estimator_state)
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
    """Begin or resume a run. result: gets the steps and evaluations that a resumed run has done.

    Raises MezoError if the folder cannot be written, or the run in it cannot be resumed.
    """
    result.start = run.header.get("start")
    if to.resume is not None:
        return _resume(to, to.resume, run, result)
    start = Start(0, 0, run.estimator.init())
    if to.output is None or not to.group.leads:
        return RunFiles(), start
    recorder = Recorder.begin(to.output, run, overwrite=to.overwrite)
    with recorder.closed_on_error():
        start_of = {} if result.start is None else {"start": result.start}
        recorder.note("started", **_environment(to), **start_of)
    result.trajectory = recorder.run.trajectory
    return recorder, start


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
    return recorder, start


def _environment(to: Destination) -> dict[str, Any]:
    return event_log.environment(str(to.measuring.device))
