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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import EvalRecord, StepRecord
from mezo.resume.plan import ResumePlan, walks
from mezo.runs import event_log, snapshots
from mezo.runs.folder import RunFolder
from mezo.runs.locking import RunLock
from mezo.runs.metrics_file import MetricsWriter
from mezo.runs.snapshots import State
from mezo.runs.trajectory import TrajectoryWriter, journal_of
from mezo.tuning.saving import SaveFailed
from mezo.util.atomic_files import reason, write_text
from mezo.util.clock import due
from mezo.weights.weights import Weights

EVERY_STEPS, EVERY_SECONDS = 1000, 900.0  # between snapshots, whichever is sooner, unless the config says


class WriteFailed(MezoError):
    """The RUN folder cannot be written. What it held before is whole."""


class Recorder:
    """The files of one run under way. Made by `begin` or `go_on`, which lock the folder; `close` lets go of it."""

    def __init__(self, run: RunFolder, lock: RunLock, every: int | None) -> None:
        self.run, self._lock, self._every = run, lock, every
        self.trajectory: TrajectoryWriter | None = None
        self.metrics: MetricsWriter | None = None
        self._snapshot_step, self._snapshot_time = 0, time.monotonic()
        self.walks = False  # theta drifts beside the records: only a snapshot brings it back

    @classmethod
    def begin(
        cls, path: Path, config: MeZOConfig, header: dict[str, Any], width: int, *, overwrite: bool
    ) -> "Recorder":
        """A new run. width: values of a step's record. Raises MezoError if the folder cannot be one."""
        RunFolder.check(path, overwrite=overwrite)
        is_new = not path.exists()
        lock = _locked(path)
        try:
            recorder = cls(RunFolder.create(path, overwrite=overwrite), lock, config.snapshot_every)
            with recorder.closed_on_error(), recorder.writing():
                write_text(recorder.run.config, config.to_yaml())
                recorder.trajectory = TrajectoryWriter(recorder.run.trajectory, header, width)
                recorder.walks = walks(header, 0, config.num_steps)
                recorder.metrics = MetricsWriter(recorder.run.metrics)
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
    def go_on(
        cls, plan: ResumePlan, lock: RunLock, config: MeZOConfig, header: dict[str, Any], width: int
    ) -> "Recorder":
        """The run of `plan` again, under `lock`. header, width: for a run that had not got as far as having them."""
        recorder = cls(plan.run, lock, config.snapshot_every)
        recorder._snapshot_step = plan.snapshot.step if plan.snapshot else 0
        settings = {**header, **(plan.header or {}), "config": header["config"]}
        recorder.walks = walks(settings, 0, config.num_steps)
        with recorder.closed_on_error(), recorder.writing():
            plan.run.clean()
            write_text(
                plan.run.config, config.to_yaml()
            )  # first: a longer run is one by its config.yaml, too
            if plan.header is None:
                recorder.trajectory = TrajectoryWriter(plan.run.trajectory, header, width)
            else:
                recorder.trajectory = TrajectoryWriter.resume(plan.run.trajectory, settings, plan.records)
            recorder.metrics = MetricsWriter(plan.run.metrics, keep=plan.metrics_bytes)
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
        """values: of the estimator, filled up to the width. Raises WriteFailed."""
        assert self.trajectory is not None
        assert self.metrics is not None
        with self.writing():
            if self.trajectory.seals_next:
                self.metrics.sync()
            self.trajectory.append((*values, *[0.0] * (self.trajectory.num_directions - len(values))))
            self.metrics.write(record)

    def evaluation(self, record: EvalRecord) -> None:
        assert self.metrics is not None
        with self.writing():
            self.metrics.write(record)

    def note(self, kind: str, /, **values: Any) -> None:
        """A line for RUN/events.jsonl."""
        with self.writing():
            event_log.note(self.run.events, kind, **values)

    def snapshot_is_due(self, done: int) -> bool:
        """After `done` steps."""
        if self._every == 0:
            return False
        if self._every is not None:
            return done % self._every == 0
        return done % EVERY_STEPS == 0 or due(time.monotonic(), self._snapshot_time, EVERY_SECONDS)

    def snapshot(self, weights: Weights, estimator_state: Any, optimizer_name: str, packed: Any) -> None:
        """Write one, of the steps recorded. packed: the optimizer's state."""
        assert self.trajectory is not None
        done = len(self.trajectory)
        if done == self._snapshot_step:
            return
        self.sync()
        heading = weights.heading.pack()
        state = State(done, self.trajectory.checksum, estimator_state, optimizer_name, packed, heading)
        with self.writing():
            snapshots.write(self.run.snapshots, weights, state)
        self._snapshot_step, self._snapshot_time = done, time.monotonic()

    @property
    def keeps_snapshots(self) -> bool:
        return self._every != 0

    def sync(self) -> None:
        """On return the steps recorded survive a loss of power."""
        assert self.trajectory is not None
        assert self.metrics is not None
        with self.writing():
            self.metrics.sync()
            self.trajectory.sync()

    def seal(self) -> None:
        """The trajectory as one file, and metrics.jsonl, on the disk; the run writes no more steps."""
        assert self.trajectory is not None
        assert self.metrics is not None
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
        """Close the files as they are and let go of the folder."""
        if self.trajectory is not None:
            self.trajectory.abandon()
        if self.metrics is not None:
            self.metrics.close()
        self._lock.release()

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
            done = 0 if self.trajectory is None else len(self.trajectory)
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
    for path in (run.config, run.metrics, journal_of(run.trajectory), run.trajectory):
        with contextlib.suppress(OSError):
            path.unlink()
