"""The training loop: evaluate, step, log, save."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mezo import noise
from mezo.algorithm import NonFiniteLoss, draw_of, mezo_step
from mezo.build.schedule import directions_at, estimator_for, learning_rate, objective_for
from mezo.build.setup import base_fingerprint, base_model, encode, set_up, with_matmul
from mezo.config import MeZOConfig
from mezo.data import EncodedDataset, MeZODataset
from mezo.data.from_config import training_set, validation_set
from mezo.data.prefetch import ahead
from mezo.errors import MezoError
from mezo.events import EvalRecord, MezoWarning, Observer, StepRecord, WarningObserver
from mezo.models.identity import identity_of
from mezo.parallel.group import Apart
from mezo.parallel.start import around, check_alike, check_state, group_for, interrupts_for, sent, settled
from mezo.resume.compatibility import data_of
from mezo.resume.follower_ranks import meet
from mezo.resume.plan import forked_at, remembers
from mezo.resume.recorder import Recorder, WriteFailed
from mezo.resume.session import Resume
from mezo.runs.folder import RunFolder
from mezo.runs.result import TrainResult
from mezo.tasks import task_for
from mezo.training.evaluation import evaluate
from mezo.training.monitors import watch_of
from mezo.training.monitors.advice import before_the_start, last_update_overflowed, naming_the_batch
from mezo.training.monitors.measuring import Counted, Measuring
from mezo.training.run_files import TrainerFiles
from mezo.tuning import tuned_modules
from mezo.types import Update
from mezo.util import memory
from mezo.util.clock import since
from mezo.util.interrupts import Forced, Terminated
from mezo.util.profiling import span

__all__ = ["MeZOTrainer", "MezoWarning", "TrainResult"]


class MeZOTrainer(TrainerFiles):
    """Tunes one model by one config.

    train, validation: default to the config's data (validation is optional: a folder without that
    split, or a single file, trains without evaluation). model, tokenizer: objects instead of the
    config's model; the model is changed in place. output: the RUN folder; None writes nothing.
    profile: measure where each step's time goes (StepRecord.profile, RUN/profile.json).
    trace_steps: write a timeline of so many steps, after the first two, to RUN/trace.json.gz.
    artifacts: False leaves the tuned weights, plots and card out of the RUN folder: numbers alone, and the
        trajectory, from which the weights can be made again.
    resume: a RUN folder to go on with, to the bytes of a run never left; config: then None for its own, and
        one that differs is refused. fork: go on in this new folder instead, under a config that may differ.

    Raises MezoError, before anything is written, for data, settings or a model that cannot be used.
    """

    def __init__(
        self,
        config: MeZOConfig | None = None,
        *,
        train: MeZODataset | None = None,
        validation: MeZODataset | None = None,
        model: Any = None,
        tokenizer: Any = None,
        output: Path | str | None = None,
        overwrite: bool = False,
        observer: Observer | None = None,
        profile: bool = False,
        trace_steps: int = 0,
        artifacts: bool = True,
        resume: Path | str | None = None,
        fork: Path | str | None = None,
    ):
        self.resume: Resume | None = None
        if resume is not None:
            self.resume = Resume.of(resume, config, fork=fork, output=output, overwrite=overwrite)
            config, output = self.resume.config, self.resume.output
        elif config is None or fork is not None:
            raise MezoError("a run needs a config, or a run to resume= (and a fork= is of one)")
        self.group = group_for(config)
        if not self.group.leads:
            observer = Observer()
        if trace_steps and (trace_steps < 0 or output is None):
            raise MezoError(
                f"trace_steps={trace_steps}: expected a number of steps, 1 or more, and an output= folder "
                "for the trace"
            )
        self.observer, self.artifacts = observer or WarningObserver(), artifacts
        config = settled(config, self.group, resuming=resume is not None, note=self.observer.on_note)
        self.config = config
        self.output, self.overwrite = None if output is None else Path(output), overwrite
        task = train.task if train is not None else task_for(config.task, config.label_words, config.template)
        self.objective = objective_for(config, task)
        self.task = task
        if (warning := before_the_start(config)) is not None:
            self.observer.on_note(warning)
        own_data = train is None
        train = train or training_set(config, task)
        if validation is None and own_data:
            validation = validation_set(config, task)
        if config.batch_size * config.gradient_accumulation > len(train):
            self.observer.on_note(
                f"the training set has {len(train)} examples, less than a step of batch_size={config.batch_size}"
                + (f" x {config.gradient_accumulation}" if config.gradient_accumulation > 1 else "")
                + ": a step takes what there is"
            )
        loaded = base_model(config, model, tokenizer, self.observer.on_note)
        self.config = config = with_matmul(
            config,
            loaded,
            self.group,
            resuming=resume is not None,
            note=self.observer.on_note,
            profile=profile,
        )
        self.train_set = encode(train, loaded, config, self.objective)
        self.validation_set = (
            None if validation is None else encode(validation, loaded, config, self.objective)
        )
        noise.announce = self.observer.on_note
        self.base_fingerprint = base_fingerprint(loaded)
        self.identity = identity_of(loaded)
        self.data = data_of(self.train_set, self.validation_set)
        if self.resume is not None:
            if (said := self.resume.check(self.base_fingerprint, self.identity, self.data)) is not None:
                self.observer.on_note(said)
            self._forked_at = forked_at(self.resume.run)
        check_alike(self.group, config, self.base_fingerprint, self.identity, self.data)
        self.bench = set_up(config, loaded, self.objective, self.group)
        self.weights = self.bench.weights
        self.engine = around(self.bench.engine, self.weights, self.group, config)
        self.estimator = estimator_for(config, self.weights)
        self.estimator_state = self.estimator.init()
        self._remembers = remembers(self.estimator, draw_of(config.seed, 0, directions_at(config, 0)))
        self.watch = watch_of(
            config, self.objective, self.estimator, self.train_set, len(loaded.tokenizer), self.output
        )
        self.measuring = Measuring(
            self.bench.device,
            profile=profile,
            trace_steps=trace_steps,
            trace_path=None if self.output is None else RunFolder(self.output).trace,
        )

    # ---------------------------------------------------------------- the loop

    def train(self) -> TrainResult:
        """Run all steps that are left. Ctrl-C ends the run early with everything saved; so does a loss that is
        not finite or has exploded, which is raised again once it is. SIGTERM ends it with what resuming it takes."""
        config, result = self.config, TrainResult(self.config, self.output)
        result.model, result.tokenizer = self.bench.model, self.bench.tokenizer
        began = time.monotonic()
        failure: MezoError | None = None
        with interrupts_for(self.engine) as interrupts, contextlib.ExitStack() as stack:
            files, first = self._open_files(result)
            if files is not None:
                stack.callback(files.close)
            check_state(self.group, first, self.estimator_state)
            self.observer.on_start(first, config.num_steps, self.summary())
            try:
                own = 0 if self.resume is None else first if self.resume.fork else self._forked_at
                self.watch.take_in(result.steps[own:], own)
                self._audit_next()
                if first == 0 or self._evaluation_is_due(first):
                    self._evaluate(result, files, first)
                with ahead(self._prepared, first, config.num_steps) as batches:
                    for step in range(first, config.num_steps):
                        with self.measuring.step():
                            self._step(step, batches, result, files, interrupts.held)
                        if self._evaluation_is_due(step + 1):
                            self._evaluate(result, files, step + 1)
                        if (
                            files is not None
                            and step + 1 < config.num_steps
                            and files.snapshot_is_due(step + 1)
                        ):
                            with interrupts.held():
                                self._snapshot(files)
                            self._audit_next()
                self._evaluate(result, files, config.num_steps)
            except Terminated:
                result.interrupted = result.terminated = True
            except Forced:
                raise  # theta may be between two steps: nothing is made of it
            except KeyboardInterrupt:
                result.interrupted = True
            except NonFiniteLoss as error:
                way_back = self.watch.after_a_failure(overflowed=last_update_overflowed(self.weights))
                failure = naming_the_batch(error, self.train_set, config, len(result.steps), way_back)
            except (WriteFailed, Apart):
                raise
            except MezoError as error:
                failure = error
            result.notices = self.watch.notices
            result.seconds += since(began)
            result.peak_memory_bytes = memory.peak_bytes()
            with contextlib.suppress(KeyboardInterrupt), interrupts.held():
                if self.artifacts or (files is None and self.group.size == 1):
                    result.model = self.engine.tuned(self.bench.model)
                if files is not None:
                    self._save(result, files, done=failure is None and not result.interrupted)
        if said := sent(self.engine):
            self.observer.on_note(said)
        self.observer.on_end()
        if failure is not None:
            if failure.of_all_ranks:
                meet(self.group)  # torchrun ends the others once one is gone, and the first is still saving
            raise failure
        return result

    def _audit_next(self) -> None:
        if self.config.audit:
            self.bench.engine.audit_next()

    def _prepared(self, step: int) -> list[Any]:
        """The step's microbatches, ready for the engine. Runs beside the step before: a function of `step` alone."""
        c = self.config
        batches = self.train_set.microbatches(step, c.batch_size, c.gradient_accumulation, c.seed)
        return self.engine.prepare_each(batches)

    def _step(
        self,
        step: int,
        batches: Iterator[Any],
        result: TrainResult,
        files: Recorder | None,
        held: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """One step, in the result and in the files, or in neither. held: a block that no Ctrl-C cuts."""
        began = time.monotonic()
        with span("data"):
            microbatches = next(batches)
        with held():
            before = Counted.of(self.engine)
            update, losses, self.estimator_state = mezo_step(
                self.engine,
                self.estimator,
                microbatches,
                draw_of(self.config.seed, step, directions_at(self.config, step)),
                learning_rate(self.config, step),
                self.estimator_state,
            )
            with span("logging"):
                record = self._record(update, losses, began, before)
                result.steps.append(record)
                if files is not None:
                    files.step(update.values, record)
        with span("logging"):
            self.observer.on_step(record)
            self.watch.step(record, self.observer.on_note, files and files.note)

    def _record(self, update: Update, losses: list[float], began: float, before: Counted) -> StepRecord:
        spent = Counted.of(self.engine) - before
        return StepRecord(
            step=update.step,
            loss=math.fsum(losses) / len(losses),
            learning_rate=update.learning_rate,
            projected_grads=tuple(d.projected_grad for d in update.directions),
            seconds=since(began),
            tokens=spent.computed,
            tokens_asked=spent.asked,
            tokens_reused=spent.reused,
            seconds_saved=spent.seconds_saved,
            profile=self.measuring.taken(),
            losses=tuple(losses) if self._remembers else None,
        )

    def close(self) -> None:
        """End a serving engine that was started for the run. Without one there is nothing to end."""
        self.engine.close()

    # ---------------------------------------------------------------- evaluation

    def evaluate(
        self, dataset: EncodedDataset | None = None, *, step: int = 0, split: str = "validation"
    ) -> EvalRecord:
        """The task's metrics and the loss at theta; see `evaluation.evaluate`."""
        examples = dataset if dataset is not None else self.validation_set
        if examples is None:
            raise MezoError("there are no validation examples to evaluate on")
        return evaluate(
            self.engine,
            examples,
            self.objective,
            has_candidates=self.task.has_candidates,
            metrics=self.task.metrics,
            step=step,
            split=split,
        )

    def _evaluation_is_due(self, done: int) -> bool:
        every = self.config.eval_every
        return every > 0 and done % every == 0 and done < self.config.num_steps

    def _evaluate(self, result: TrainResult, files: Recorder | None, step: int) -> None:
        if self.validation_set is None or (result.evals and result.evals[-1].step == step):
            return
        record = self.evaluate(step=step)
        result.evals.append(record)
        if files is not None:
            files.evaluation(record)
        self.observer.on_eval(record)

    # ---------------------------------------------------------------- words

    def summary(self) -> str:
        c = self.config
        what = f"lora on {tuned_modules(self.bench.model)}" if c.tuning == "lora" else c.tuning
        return (
            f"{c.model}, {what}: {self.weights.num_elements:,} of {sum(p.numel() for p in self.bench.model.parameters()):,} "
            f"parameters tuned on {len(self.train_set):,} examples; {self.objective.name}, batch {c.batch_size}, "
            f"learning rate {c.learning_rate:g} ({c.schedule}), epsilon {c.epsilon:g}, {c.num_steps:,} steps"
        )
