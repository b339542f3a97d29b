"""What the trainer does with its RUN folder: begin it or take it up, snapshots, the end."""

import math
from pathlib import Path
from typing import Any

import mezo
from mezo.build.schedule import most_directions
from mezo.build.setup import Prepared
from mezo.config import MeZOConfig
from mezo.engines.transformers.engine import TransformersEngine
from mezo.estimators import Estimator
from mezo.events import Observer
from mezo.noise.spec import VERSION as NOISE_VERSION
from mezo.parallel.group import ProcessGroup
from mezo.resume.follower_ranks import follow, meet
from mezo.resume.recorder import Recorder
from mezo.resume.session import Resume, going_on, take_up
from mezo.runs import event_log
from mezo.runs.result import TrainResult
from mezo.training.artifacts import leave
from mezo.training.monitors.measuring import Measuring
from mezo.weights.weights import Weights


class TrainerFiles:
    """The part of MeZOTrainer that knows of files; which the rest of it may have none of."""

    config: MeZOConfig
    observer: Observer
    output: Path | None
    overwrite: bool
    artifacts: bool
    resume: Resume | None
    bench: Prepared
    weights: Weights
    estimator: Estimator
    estimator_state: Any
    measuring: Measuring
    base_fingerprint: str
    identity: dict[str, Any]
    data: dict[str, str | None]
    group: ProcessGroup
    _remembers: bool

    def _open_files(self, result: TrainResult) -> tuple[Recorder | None, int]:
        """The run's files and the first step to do; for a resumed run, after what it has done already."""
        if self.output is None:
            return None, 0
        if not self.group.leads:
            first, self.estimator_state = follow(
                self.resume, self.bench, self.estimator, result, remembers=self._remembers, group=self.group
            )
            return None, first
        first, where = 0, event_log.environment(str(self.bench.device))
        header, width = self.header(), self.estimator.width(most_directions(self.config))
        if self.resume is None:
            files = Recorder.begin(self.output, self.config, header, width, overwrite=self.overwrite)
            with files.closed_on_error():
                files.note("started", **where)
        else:
            files, found, self.estimator_state = take_up(
                self.resume,
                header,
                width,
                self.bench,
                self.estimator,
                remembers=self._remembers,
                note=self.observer.on_note,
                ready=lambda: meet(self.group),
                told=self.observer.on_replay,
            )
            first = found.done
            result.steps, result.evals = list(found.steps), list(found.evals)
            result.seconds = math.fsum(r.seconds for r in (*found.steps, *found.evals))
            with files.closed_on_error():
                going_on(files, first, where, self.observer.on_note)
        result.trajectory = files.run.trajectory
        return files, first

    def header(self) -> dict[str, Any]:
        """What a replay needs besides the records, and what a resumed run is compared with."""
        return {
            "mezo": mezo.__version__,
            "noise": NOISE_VERSION,
            "base_fingerprint": self.base_fingerprint,
            "model": self.identity,
            "data": self.data,
            "config": self.config.model_dump(mode="json"),
        }

    def _snapshot(self, files: Recorder) -> None:
        engine = self.bench.engine
        if isinstance(engine, TransformersEngine) and files.keeps_snapshots:
            packed = engine.optimizer.pack(engine.state)
            files.snapshot(self.weights, self.estimator_state, self.config.optimizer, packed)

    def _save(self, result: TrainResult, files: Recorder, *, done: bool) -> None:
        files.sync()
        if result.terminated or files.walks:
            self._snapshot(files)
        if result.terminated:
            files.note("terminated", step=len(result.steps))
            return
        files.seal()
        with files.writing():
            leave(
                files.run,
                result,
                self.bench.tokenizer,
                self.measuring,
                artifacts=self.artifacts,
                note=self.observer.on_note,
            )
        if done:
            files.finished(len(result.steps))
        else:
            files.note("stopped", step=len(result.steps))
