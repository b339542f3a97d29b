"""From what a run has left on disk, whatever ended it, to the run going on as if nothing had.

A step is two lines, its record in the trajectory and then its line in metrics.jsonl; it is done when both
are there. The shorter of the two files says how far the run came, and what is beyond it in the other is cut off
and made again: batches, directions and learning rates are functions of the step's number, so the same bytes
come out. What can happen, and what comes of it:

- between the record and the metrics: the step is done again.
- within a record, a line, a block: the torn end is dropped, and the step is done again.
- between sealing a block and emptying the journal: the records are in both; those of the file count.
- between a snapshot's rename and the removal of the third newest: three are there; the next one tidies up.
- within a snapshot or of the final weights: a temporary file, removed when the run is resumed; the
  steps are replayed from the snapshot before, and the weights written again.
- after the last step, before everything is saved: the steps are replayed and everything is saved.
- while resuming: the files are cut in an order in which any of them may be left as it was (trajectory, metrics).

theta comes back from the newest sound snapshot and the records after it, which move it to the same bits
without a forward pass. Two kinds of runs cannot be replayed, and go back to a snapshot to do its later steps
again: a walked run (`memory` other than "materialize"), whose theta drifts beside its records, and a run of an
estimator that remembers losses, if its metrics lack them.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mezo.build.schedule import most_directions
from mezo.config import MeZOConfig
from mezo.data.references import References
from mezo.engines.base import Engine
from mezo.errors import MezoError
from mezo.estimators import Estimator
from mezo.estimators.base import losses_of
from mezo.events import EvalRecord, StepRecord
from mezo.resume.replay_steps import Folding, Progress, check_noise, configs_of
from mezo.runs import snapshots, trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import record_of
from mezo.runs.snapshots import Snapshot
from mezo.tuning.label_rows import LabelRows
from mezo.types import Draw
from mezo.weights.weights import Weights


@dataclass(frozen=True)
class FreshRun:
    """A run before its first step: what a new one records of itself, and what a resumed one is restored into."""

    config: MeZOConfig
    header: dict[str, Any]  # what a replay needs besides the records, and what resuming it compares
    weights: Weights
    engine: Engine
    estimator: Estimator
    remembers: bool  # whether the estimator has a state that records do not hold (`remembers`)
    rows: LabelRows | None = None  # of label words, that theta has from the start
    references: References | None = None  # the start's log-probabilities, for an objective that reads them

    @property
    def width(self) -> int:
        """The values of a step's record, at most."""
        return self.estimator.width(most_directions(self.config))


@dataclass(frozen=True)
class ResumePlan:
    """How far a run is, and where resuming it begins. Reading it changes nothing."""

    run: RunFolder
    header: dict[str, Any] | None  # None: it ended before it had a trajectory
    records: np.ndarray  # (steps done, width) float32
    steps: list[StepRecord]
    evals: list[EvalRecord]
    metrics_bytes: int  # of metrics.jsonl, up to the last of these lines
    snapshot: Snapshot | None
    repeated: int = 0  # steps that were done and cannot be replayed

    @property
    def done(self) -> int:
        return len(self.records)


def config_of(run: RunFolder) -> MeZOConfig:
    """The run's settings as recorded; before any were, those it was started with.

    Raises MezoError if the trajectory cannot be read or is of another noise stream.
    """
    header = header_of(run)
    return MeZOConfig.read(run.config) if header is None else configs_of(header)[-1][1]


def header_of(run: RunFolder) -> dict[str, Any] | None:
    """Of its trajectory; None if it has none yet."""
    if not run.trajectory.exists():
        return None
    header = trajectory.read(run.trajectory).header
    check_noise(run.trajectory, header, ": resume it with the mezo that began it")
    return header


def plan(
    run: RunFolder,
    *,
    remembers: bool,
    note: Callable[[str], None] = lambda text: None,
) -> ResumePlan:
    """How the run in the folder can be resumed.

    remembers: whether its estimator has a state that records do not hold. note: called for each damaged snapshot.
    Raises MezoError for damage that no crash causes.
    """
    header = header_of(run)
    if header is None:
        if run.metrics.exists():
            raise MezoError(
                f"{run.path}: has no {run.trajectory.name}: only a run of `mezo train` can be resumed"
            )
        return ResumePlan(run, None, np.empty((0, 1), np.float32), [], [], 0, None)
    records = trajectory.read(run.trajectory).records
    steps, evals, ends = _sound(run.metrics, trusted=trajectory.sealed(run.trajectory) - 1)
    have = min(len(records), len(steps))

    def fits(snapshot: Snapshot) -> bool:
        return snapshot.step <= have and snapshot.trajectory == trajectory.checksum(records[: snapshot.step])

    begin = snapshots.newest(run.snapshots, fits, note)
    since, own = begin.step if begin else 0, own_first(header)
    exact = not walks(header, since, have) and not (
        remembers and any(step.losses is None for step in steps[max(since, own) : have])
    )
    done = have if exact else since
    if done < own:
        raise MezoError(
            f"{run.path}: goes on from step {own} of another run, of which no snapshot is left here and whose steps "
            "cannot be replayed; fork it again"
        )
    kept = [e for e in evals if e.step <= done]
    size = max((end for step, end in ends if step <= done), default=0)
    return ResumePlan(run, header, records[:done], steps[:done], kept, size, begin, have - done)


def _sound(path: Path, *, trusted: int) -> tuple[list[StepRecord], list[EvalRecord], list[tuple[int, int]]]:
    """The records of metrics.jsonl up to the first invalid line; (updates done, end in bytes) of each.

    trusted: so many steps had been synced to disk. An invalid line among those is no torn write: MezoError.
    """
    steps: list[StepRecord] = []
    evals: list[EvalRecord] = []
    ends: list[tuple[int, int]] = []
    at = 0
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate(lines[:-1], start=1):
        try:
            where = f"{path}:{number}"
            record = record_of(line.decode("utf-8", "replace"), where)
            if record.step != len(steps):
                raise MezoError(
                    f"{where}: expected a record of step {len(steps)}, found one of step {record.step}"
                )
        except MezoError:
            if len(steps) < trusted:
                raise
            break
        at += len(line) + 1
        if isinstance(record, StepRecord):
            steps.append(record)
            ends.append((record.step + 1, at))
        else:
            evals.append(record)
            ends.append((record.step, at))
    if len(steps) < trusted:
        raise MezoError(
            f"{path}: ends after step {len(steps)}, and the trajectory has {trusted + 1} and more on the disk: "
            "lines were lost by other than a crash; `mezo replay` still makes the weights"
        )
    return steps, evals, ends


def restore(plan: ResumePlan, fresh: FreshRun, progress: Progress | None = None) -> Any:
    """Take theta, m and the optimizer's state of `fresh` to where the run is; return the estimator's state.

    progress: called during the replay (`Folding.take`). Raises MezoError if the snapshot is of other tensors.
    """
    weights, engine, estimator = fresh.weights, fresh.engine, fresh.estimator
    if plan.header is None:
        return estimator.init()
    folding, own, state = Folding(plan.header, weights), own_first(plan.header), estimator.init()
    if plan.snapshot is not None:
        found = plan.snapshot.restore_(weights)
        folding.begin(found.step, found.optimizer_name, found.optimizer)
        state = found.estimator if found.step > own else state

    def remember(step: int) -> None:
        # at the right moment: an estimator may read m, which each step moves
        nonlocal state
        losses = plan.steps[step].losses
        if losses is not None and step >= own:
            _, state = estimator.tell(folding.draw(step), losses, state)

    if engine.holds_theta:
        folding.take(plan.records[folding.step :], progress, remember)
        engine.restore(folding.optimizer_state)
        return state
    for record in plan.records[folding.step :]:
        remember(folding.step)
        engine.apply(folding.next(record.tolist()))
        folding.passed()
    return state


def own_first(header: Mapping[str, Any]) -> int:
    """The first step that is the run's own, and not of a run that it was forked off."""
    ends = [end for end, _ in configs_of(header)[:-1]]
    return int(ends[-1]) if ends else 0


def walks(header: Mapping[str, Any], first: int, end: int) -> bool:
    """Whether theta drifts beside the records in one of the steps from `first` to before `end`."""
    begin = 0.0
    for stop, config in configs_of(header):
        if config.memory != "materialize" and max(begin, first) < min(stop, end):
            return True
        begin = stop
    return False


def remembers(estimator: Estimator, draw: Draw) -> bool:
    """Whether a step changes the estimator's state, which its record does not hold."""
    before = estimator.init()
    with contextlib.suppress(ArithmeticError):
        losses = losses_of(estimator, draw, before, lambda probes: [1.0] * len(probes))
        return estimator.tell(draw, losses, before)[1] != before
    return True
