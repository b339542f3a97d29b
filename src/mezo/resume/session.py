"""Resuming a run in its own folder, or forking it into a new one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.models.identity import check_code
from mezo.models.locate import folder_of
from mezo.parallel.environment import rank_of_environment
from mezo.parallel.group import ProcessGroup
from mezo.resume.compatibility import (
    check_base,
    check_branches,
    check_data,
    check_fork,
    check_model,
    check_plugins,
    check_settings,
)
from mezo.resume.plan import FreshRun, ResumePlan, config_of, header_of, plan, restore
from mezo.resume.recorder import Recorder
from mezo.resume.replay_steps import Progress
from mezo.runs import event_log, trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.locking import RunLock
from mezo.util.atomic_files import write_all
from mezo.util.plugins import KINDS, REPLAYED
from mezo.util.settings_text import values_of


@dataclass(frozen=True)
class Resume:
    """A run to resume, in its own folder or, as a fork, in a new one."""

    run: RunFolder
    config: MeZOConfig  # of the steps to come
    fork: Path | None  # the new folder
    overwrite: bool  # whether the new folder may hold a run

    @classmethod
    def of(
        cls,
        path: Path | str,
        config: MeZOConfig | None,
        *,
        fork: Path | str | None,
        output: Path | str | None,
        overwrite: bool,
    ) -> "Resume":
        """Check that the run can be resumed, and change nothing.

        Args:
            path: the RUN folder.
            config: of the steps to come; None for the run's own.
            fork: a new folder to go on in, under a config that may differ.
            output: the folder that the caller named; must be the run's own.
            overwrite: whether the new folder may hold a run.

        Raises MezoError if there is no such run or another process writes it, Changed if it cannot go on under this
        config.
        """
        run = RunFolder.begun(path)
        if rank_of_environment() == 0:  # of several processes, the one that will hold it
            RunLock.check(run.path)
        if output is not None and Path(output).resolve() != run.path.resolve():
            raise MezoError(
                f"{output}: a resumed run goes on in its own folder, {run.path}; leave --output away, or give --fork"
            )
        if overwrite and fork is None:
            raise MezoError(f"{run.path}: resume it or overwrite it: give one of --resume and --overwrite")
        _check_whole(run)
        config, own = config or MeZOConfig.load(run.config), config_of(run)
        if config.task == "auto":
            config = config.model_copy(update={"task": own.task})
        if config.dtype == "auto":
            config = config.model_copy(update={"dtype": own.dtype})
        if config.matmul == "auto":  # as the run has it, whatever would be faster here
            config = config.model_copy(update={"matmul": own.matmul})
        if fork is None:
            check_settings(run.path, own, config)
        else:
            if config.tensor_parallel > 1:
                raise MezoError(
                    f"{run.path}: a run with tensor_parallel={config.tensor_parallel} cannot be forked"
                )
            RunFolder.check(fork, overwrite=overwrite)
            check_fork(run.path, own, config)
        _check_plugins(run, config, forks=fork is not None)
        if config.trust_remote_code and (header := header_of(run)) is not None:
            check_code(config.model, folder_of(config.model, code=True), header.get("model"))
        return cls(run, config, None if fork is None else Path(fork), overwrite)

    @property
    def output(self) -> Path:
        return self.fork or self.run.path

    def check(
        self, base_fingerprint: str, model: Mapping[str, Any], data: Mapping[str, str | None]
    ) -> str | None:
        """Compare the base model and, unless the run is forked, its examples; return a note for people, if any.

        Raises Changed if one differs.
        """
        header = header_of(self.run) or {"base_fingerprint": base_fingerprint, "model": model}
        check_base(self.run.path, header, base_fingerprint)
        note = check_model(self.run.path, header, model)
        if self.fork is None:
            check_data(self.run.path, header, data)
        return note


def _check_plugins(run: RunFolder, config: MeZOConfig, *, forks: bool) -> None:
    """Those of the run, and for a fork those alone that its steps so far depend on."""
    header = header_of(run)
    if header is not None:
        check_plugins(
            run.path, header, header["config"] if forks else config.model_dump(), REPLAYED if forks else KINDS
        )
        check_branches(run.path, header)


def _check_whole(run: RunFolder) -> None:
    """Raises MezoError if config.yaml lacks settings that the run has: its end is cut off, and defaults would replace it."""
    recorded = (header_of(run) or {}).get("config")
    named = set(recorded) if isinstance(recorded, dict) else set[str]()
    missing = named - set(values_of(run.config)) - {"trust_remote_code"}  # which no file is asked for
    if missing:
        raise MezoError(
            f"{run.config}: expected all settings of the run, found it without {', '.join(sorted(missing)[:4])}: the file is "
            "not whole: copy it from a backup"
        )


def is_finished(path: Path, config: MeZOConfig) -> bool:
    """Whether the run there has done all steps of `config`, and has saved everything."""
    last = (event_log.read(RunFolder(path).events) or [{}])[-1]
    return last.get("event") == "finished" and last.get("step") == config.num_steps


def take_up(
    resume: Resume,
    fresh: FreshRun,
    *,
    note: Callable[[str], None],
    ready: Callable[[], object] = lambda: None,
    progress: Progress | None = None,
) -> tuple[Recorder, ResumePlan, Any]:
    """Resume or fork a run, on the process that writes it.

    Args:
        resume: which run, and where it goes on.
        fresh: its weights and its engine are taken to where the run is.
        note: called with messages for people.
        ready: called when everything is read and nothing is written yet.
        progress: called with the progress of the replay.

    Returns the run's files, what the run has done, and the estimator's state. Raises MezoError if the run cannot go
    on, or has done more steps than the config has.
    """
    lock = RunLock.take(resume.run.path)
    try:
        found = plan(resume.run, remembers=fresh.remembers, note=note)
        if found.done > resume.config.num_steps:
            raise MezoError(
                f"{resume.run.path}: has done {found.done} steps, and is to have {resume.config.num_steps}: give it more "
                "with --steps"
            )
        if found.repeated:
            note(f"step {found.done}: the {found.repeated} steps after the last snapshot are done again")
        state = restored(resume, found, fresh, progress)
        ready()
        if resume.fork is None:
            return Recorder.go_on(found, lock, resume.config, fresh), found, state
        recorder, found = _fork(found, resume, fresh)
    except BaseException:
        lock.release()
        raise
    lock.release()
    recorder.snapshot(state)
    return recorder, found, state


def follow(resume: Resume, fresh: FreshRun, *, ready: Callable[[], object]) -> tuple[ResumePlan, Any]:
    """Reach the state that `take_up` reaches, on a process that does not write the run.

    ready: called when everything is read; the leader writes nothing before it (`meet`).
    """
    found = plan(resume.run, remembers=fresh.remembers)
    state = restored(resume, found, fresh)
    ready()
    return found, state


def meet(group: ProcessGroup) -> None:
    """Wait until all processes are here."""
    group.gather(np.zeros(1, dtype=np.int64))


def restored(resume: Resume, found: ResumePlan, fresh: FreshRun, progress: Progress | None = None) -> Any:
    """Take theta and the optimizer to where the run is, and return the estimator's state.

    A fork has a new estimator, and a new optimizer where its config names another.
    """
    state = restore(found, fresh, progress)
    if resume.fork is None or found.header is None:
        return state
    if fresh.engine.holds_theta and found.header["config"]["optimizer"] != resume.config.optimizer:
        fresh.engine.restore(None)
    return fresh.estimator.init()


def going_on(files: Recorder, step: int, where: dict[str, Any], note: Callable[[str], None]) -> None:
    """Tell people, and RUN/events.jsonl, that the run goes on after `step` steps, in the environment `where`."""
    before = [line for line in event_log.read(files.run.events) if "torch" in line]
    note(f"going on at step {step}")
    if before and (changed := event_log.changed(before[-1], where)):
        note(f"warning: not where the run was: {changed}; its next losses may differ in their last digits")
    files.note("resumed", step=step, **where)


def _fork(found: ResumePlan, resume: Resume, fresh: FreshRun) -> tuple[Recorder, ResumePlan]:
    """A new run whose first steps are those of the other one, and which needs none of its files."""
    assert resume.fork is not None
    if found.header is None or not found.done:
        raise MezoError(f"{found.run.path}: has no step yet to go on from; start another run")
    width = max(fresh.width, found.records.shape[1])
    branch = {"end": found.done, "config": found.header["config"]}
    if "plugins" in found.header:
        branch["plugins"] = found.header["plugins"]
    new = {
        "format": trajectory.FORMAT_VERSION,
        "num_directions": width,
        **fresh.header,
        "branches": [*found.header.get("branches", []), branch],
        "parent": {
            "path": str(found.run.path),
            "step": found.done,
            "trajectory": trajectory.checksum(found.records),
        },
    }
    padded = np.pad(found.records, ((0, 0), (0, width - found.records.shape[1])))
    run = RunFolder.check(resume.fork, overwrite=resume.overwrite)
    run.path.mkdir(parents=True, exist_ok=True)
    lock = RunLock.take(run.path)
    try:
        RunFolder.create(run.path, overwrite=resume.overwrite)
        with run.metrics.open("xb", buffering=0) as file:
            write_all(file, found.run.metrics.read_bytes()[: found.metrics_bytes])
        child = replace(found, run=run, header=new, records=padded, snapshot=None, repeated=0)
        recorder = Recorder.go_on(child, lock, resume.config, fresh)
        recorder.note("forked", **new["parent"])
    except BaseException:
        lock.release()
        raise
    return recorder, child
