"""What a run writes while it goes on, so that whatever ends it, it can be resumed from what is there.

    step         the record to the trajectory's journal, then the line to metrics.jsonl: both survive the death
                 of the process, and neither waits for the disk
    64 steps     metrics.jsonl is brought to the disk, then the journal, then the block that takes its place
    snapshot     metrics.jsonl and the journal, so that neither is behind it; then the snapshot: the file, its
                 name, and only then the third newest is removed
    SIGTERM      metrics.jsonl and the journal at once; a snapshot only then, as there may be no time for it
    end          all of it, the tuned weights and their name; then the snapshots are removed

"Brought to the disk" is fsync. So a loss of power costs at most the 64 steps before it, which a resumed run
does again. A write that fails (a full disk) ends the run: nothing is written after it, what was is whole up to
its last record, and the error says how to go on.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import EvalRecord, StepRecord
from mezo.resume.plan import FreshRun, ResumePlan, walks
from mezo.resume.reference_file import write_references
from mezo.resume.start_file import write_start
from mezo.runs import event_log, snapshots
from mezo.runs.folder import RunFolder
from mezo.runs.locking import RunLock
from mezo.runs.metrics_file import MetricsWriter
from mezo.runs.samples import Sample, write_samples
from mezo.runs.snapshots import State
from mezo.runs.trajectory import TrajectoryWriter, journal_of
from mezo.tuning.saving import SaveFailed
from mezo.util.atomic_files import reason, write_text
from mezo.util.clock import due

EVERY_STEPS, EVERY_SECONDS = 1000, 900.0  # between snapshots, whichever is sooner, unless the config says


class WriteFailed(MezoError):
    """The RUN folder cannot be written. What it held before is whole."""


class RunFiles:
    """Writes nothing: for a run without an output folder, and for every rank but the leader."""

    def step(self, values: Sequence[float], record: StepRecord) -> None:
        """values: of the estimator, for the trajectory. Raises WriteFailed, as all methods do."""

    def evaluation(self, record: EvalRecord) -> None: ...

    def samples(self, samples: Sequence[Sample]) -> None:
        """Outputs of a step, with their rewards."""

    def note(self, kind: str, /, **values: Any) -> None:
        """A line for RUN/events.jsonl."""

    def snapshot_is_due(self, done: int) -> bool:
        """After `done` steps."""
        return False

    def snapshot(self, estimator_state: Any) -> None:
        """Write one of the steps so far, where theta is in this process."""

    def close(self) -> None:
        """Close the files as they are and release the folder."""


class Recorder(RunFiles):
    """The files of one run under way. Made by `begin` or `go_on`, which lock the folder; `close` releases it."""

    trajectory: TrajectoryWriter
    metrics: MetricsWriter
    walks: bool  # theta drifts beside the records: only a snapshot brings it back

    def __init__(self, run: RunFolder, lock: RunLock, every: int | None, source: FreshRun | None) -> None:
        """source: what a snapshot is taken of."""
        self.run, self._every, self._source = run, every, source
        self._snapshot_step, self._snapshot_time = 0, time.monotonic()
        self._open = contextlib.ExitStack()  # what `close` closes
        self._open.callback(lock.release)

    def _write_to(self, trajectory: TrajectoryWriter, metrics: Callable[[], MetricsWriter]) -> None:
        self._open.callback(trajectory.abandon)
        self.trajectory = trajectory
        self.metrics = self._open.enter_context(metrics())

    @classmethod
    def begin(cls, path: Path, run: FreshRun, *, overwrite: bool) -> "Recorder":
        """A new run. Raises MezoError if the folder cannot be one."""
        RunFolder.check(path, overwrite=overwrite)
        is_new = not path.exists()
        lock = _locked(path)
        try:
            folder, config = RunFolder.create(path, overwrite=overwrite), run.config
            recorder = cls(folder, lock, config.snapshot_every, run)
            recorder.walks = walks(run.header, 0, config.num_steps)
            with recorder.closed_on_error(), recorder.writing():
                write_text(folder.config, config.to_yaml())
                write_start(folder, run.rows)
                write_references(folder, run.references)
                written = TrajectoryWriter(folder.trajectory, run.header, run.width)
                recorder._write_to(written, lambda: MetricsWriter(folder.metrics))
        except WriteFailed:
            lock.release()
            raise
        except BaseException:
            _forget(RunFolder(path))  # a start that is refused leaves no RUN, which would have no step
            lock.release()
            if is_new:
                with contextlib.suppress(OSError):
                    path.rmdir()
            raise
        return recorder

    @classmethod
    def go_on(cls, plan: ResumePlan, lock: RunLock, config: MeZOConfig, run: FreshRun) -> "Recorder":
        """The run of `plan` again, under `lock`. run: its header serves a run that had none yet."""
        recorder = cls(plan.run, lock, config.snapshot_every, run)
        recorder._snapshot_step = plan.snapshot.step if plan.snapshot else 0
        settings = {**run.header, **(plan.header or {}), "config": run.header["config"]}
        recorder.walks = walks(settings, 0, config.num_steps)
        with recorder.closed_on_error(), recorder.writing():
            plan.run.clean()
            # first: a longer run is one by its config.yaml, too
            write_text(plan.run.config, config.to_yaml())
            write_start(plan.run, run.rows)
            write_references(plan.run, run.references)
            if plan.header is None:
                written = TrajectoryWriter(plan.run.trajectory, run.header, run.width)
            else:
                written = TrajectoryWriter.resume(plan.run.trajectory, settings, plan.records)
            recorder._write_to(written, lambda: MetricsWriter(plan.run.metrics, keep=plan.metrics_bytes))
            snapshots.drop(plan.run.snapshots, after=plan.done)
        return recorder

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Closes the files and releases the lock if the block raises."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def step(self, values: Sequence[float], record: StepRecord) -> None:
        with self.writing():
            if self.trajectory.seals_next:
                self.metrics.sync()
            self.trajectory.append((*values, *[0.0] * (self.trajectory.num_directions - len(values))))
            self.metrics.write(record)

    def evaluation(self, record: EvalRecord) -> None:
        with self.writing():
            self.metrics.write(record)

    def samples(self, samples: Sequence[Sample]) -> None:
        with self.writing():
            write_samples(self.run, samples)

    def note(self, kind: str, /, **values: Any) -> None:
        with self.writing():
            event_log.note(self.run.events, kind, **values)

    def snapshot_is_due(self, done: int) -> bool:
        if self._every == 0:
            return False
        if self._every is not None:
            return done % self._every == 0
        return done % EVERY_STEPS == 0 or due(time.monotonic(), self._snapshot_time, EVERY_SECONDS)

    def snapshot(self, estimator_state: Any) -> None:
        source, done = self._source, len(self.trajectory)
        if done == self._snapshot_step or source is None or not source.engine.holds_theta:
            return
        packed, weights = source.engine.packed_state(), source.weights
        self.sync()
        optimizer, heading = source.config.optimizer, weights.heading.pack()
        state = State(done, self.trajectory.checksum, estimator_state, optimizer, packed, heading)
        with self.writing():
            snapshots.write(self.run.snapshots, weights, state)
        self._snapshot_step, self._snapshot_time = done, time.monotonic()

    @property
    def keeps_snapshots(self) -> bool:
        return self._every != 0

    def sync(self) -> None:
        """On return the steps recorded survive a loss of power."""
        with self.writing():
            self.metrics.sync()
            self.trajectory.sync()

    def seal(self) -> None:
        """The trajectory as one file, and metrics.jsonl, on the disk; the run writes no more steps."""
        with self.writing():
            self.metrics.sync()
            self.trajectory.close()

    def finished(self, done: int) -> None:
        """Everything is saved. Snapshots are of no more use, but to a longer run or a fork of one that walks."""
        with self.writing():
            event_log.note(self.run.events, "finished", step=done)
            if not self.walks:
                snapshots.drop(self.run.snapshots, after=-1)
                with contextlib.suppress(OSError):
                    self.run.snapshots.rmdir()

    def close(self) -> None:
        self._open.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """What cannot be written in the block is WriteFailed, with what to do."""
        try:
            yield
        except (OSError, SafetensorError, SaveFailed) as error:
            if not self.run.path.is_dir():
                raise WriteFailed(
                    f"{self.run.path}: is gone: it was moved or removed while the run was going on; put it back and "
                    f"resume it, or start the run again"
                ) from None
            done = len(self.trajectory) if hasattr(self, "trajectory") else 0
            why = error.why if isinstance(error, SaveFailed) else reason(error)
            first = "make it writable" if why == os.strerror(errno.EROFS) else "make room"
            begun = self.run.config.is_file()
            safe = f"the {done} steps before are safe: " if begun else ""
            then = f"go on with `mezo train --resume {self.run.path}`" if begun else "start the run again"
            raise WriteFailed(
                f"{self.run.path}: cannot be written: {why}; {safe}{first}, then {then}"
            ) from None


def _locked(path: Path) -> RunLock:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MezoError(f"{path}: cannot prepare the folder for the run: {reason(error)}") from None
    return RunLock.take(path)


def _forget(run: RunFolder) -> None:
    """Remove the files that a run begins with."""
    for path in (
        run.config,
        run.start,
        run.reference,
        run.metrics,
        journal_of(run.trajectory),
        run.trajectory,
    ):
        with contextlib.suppress(OSError):
            path.unlink()
