"""The training loop: evaluate, step, record, snapshot."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mezo.algorithm import NonFiniteLoss, draw_of, mezo_step
from mezo.build.schedule import directions_at, learning_rate
from mezo.config import MeZOConfig
from mezo.data import EncodedDataset, MeZODataset
from mezo.data.prefetch import ahead
from mezo.errors import MezoError
from mezo.events import EvalRecord, MezoWarning, Observer, StepRecord, StopTraining
from mezo.models.quantised import num_parameters
from mezo.noise import announced
from mezo.objectives import told
from mezo.parallel.group import Apart
from mezo.parallel.start import check_state, group_for, interrupts_for, sent
from mezo.resume.recorder import RunFiles, WriteFailed
from mezo.resume.session import Resume, meet
from mezo.runs.folder import RunFolder
from mezo.runs.notebook import default_observer
from mezo.runs.result import TrainResult
from mezo.sinks.logging import Several
from mezo.training.callbacks import Callbacks
from mezo.training.computed import ComputeMetrics, with_computed
from mezo.training.evaluation import ModelAnswers, evaluate
from mezo.training.monitors import watch_of
from mezo.training.monitors.advice import before_the_start, last_update_overflowed, naming_the_batch
from mezo.training.monitors.measuring import Measuring
from mezo.training.population import population_of
from mezo.training.prepare import Given, prepare_run
from mezo.training.run_files import Destination, Start, open_files, save_files
from mezo.training.trainer_form import TrainerForm, one_of
from mezo.tuning import tuned_modules
from mezo.util import memory
from mezo.util.clock import since
from mezo.util.interrupts import Forced, Interrupts, Terminated
from mezo.util.profiling import span

__all__ = ["MeZOTrainer", "MezoWarning", "TrainResult"]


class MeZOTrainer:
    """Tunes one model by one config.

    Args:
        config: the settings; None with `resume`, for those of the run.
        train: the training examples; by default the config's data.
        validation: the examples to evaluate on; by default the config's data, and none where that is a single
            file or a folder without such a split.
        model: an object instead of the config's model; it is changed in place, and needs `tokenizer`.
        tokenizer: the model's.
        output: the RUN folder; None writes nothing.
        overwrite: whether the folder may hold a run, which is then removed.
        observer: hears of steps, evaluations and notes; by default a notebook's cell, or Python warnings of notes.
        profile: measure where each step's time goes (StepRecord.profile, RUN/profile.json).
        trace_steps: write a timeline of so many steps, after the first two, to RUN/trace.json.gz.
        artifacts: False leaves tuned weights, plots and card out of the RUN folder; the trajectory is always there.
        resume: a RUN folder to go on with. The result has the bytes of an uninterrupted run.
        fork: a new folder for the resumed run, whose config may then differ.
        args, train_dataset, eval_dataset, processing_class: by the names of transformers' Trainer, in place of config, train,
            validation and tokenizer: a MeZOConfig or TrainingArguments, data in any form that MeZODataset takes. `model` may
            be a path, too.
        compute_metrics: more metrics at each evaluation, a function of a `transformers.EvalPrediction`: predictions are
            the candidates' scores and label_ids the right ones, or both are texts where there is no choice.
        callbacks: `transformers.TrainerCallback` objects; of their control, should_training_stop counts.

    Raises:
        MezoError: the config, the data or the model cannot be used. Nothing has been written then.
        Changed: the run to resume has other settings, another base model or other examples.

    Example:
        >>> import mezo
        >>> config = mezo.MeZOConfig.build(model="./my-model", task="prompt-completion", data="tickets.jsonl",
        ...     learning_rate=1e-5, num_steps=3)
        >>> result = mezo.MeZOTrainer(config, output="runs/tickets").train()
        >>> result.output.name
        'tickets'
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
        args: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: ComputeMetrics | None = None,
        callbacks: Sequence[Any] = (),
    ):
        form = TrainerForm(
            model, args, one_of("train", train, train_dataset), one_of("validation", validation, eval_dataset)
        )
        config, folder, form = form.config(config, resuming=resume is not None)
        tokenizer = one_of("tokenizer", tokenizer, processing_class)
        output = folder if output is None and resume is None else output
        resumed: Resume | None = None
        if resume is not None:
            resumed = Resume.of(resume, config, fork=fork, output=output, overwrite=overwrite)
            config, output = resumed.config, resumed.output
        elif config is None or fork is not None:
            raise MezoError("a run needs a config, or a run to resume= (and a fork= is of one)")
        self.group = group_for(config)
        self.observer = (observer or default_observer()) if self.group.leads else Observer()
        if callbacks and self.group.size > 1:
            raise MezoError("callbacks= are for runs of one process: leave out torchrun, or give observer=")
        if trace_steps and (trace_steps < 0 or output is None):
            raise MezoError(
                f"trace_steps={trace_steps}: expected a number of steps, 1 or more, and an output= folder "
                "for the trace"
            )
        if (warning := before_the_start(config)) is not None:
            self.observer.on_note(warning)
        with announced(self.observer.on_note):
            setup = prepare_run(
                config,
                Given(*form.data(config), form.model, tokenizer),
                resumed,
                self.group,
                note=self.observer.on_note,
                profile=profile,
            )
        self.task, self.objective, self.bench = setup.task, setup.objective, setup.bench
        self.train_set, self.validation_set = setup.train_set, setup.validation_set
        self._fresh, self._samples, run = setup.run, setup.samples, setup.run
        self.config, self.weights, self.engine = run.config, run.weights, run.engine
        self.estimator, self.estimator_state = run.estimator, run.estimator.init()
        self.output, self.compute_metrics = None if output is None else Path(output), compute_metrics
        if callbacks:
            arguments = None if isinstance(args, MeZOConfig) else args
            shown = {"model": self.bench.model, "processing_class": self.bench.tokenizer}
            told = Callbacks(callbacks, arguments, run.config, shown, len(self.train_set))
            self.observer = Several(self.observer, told)
        self.watch = watch_of(
            run.config, self.objective, run.estimator, self.train_set, len(self.bench.tokenizer), self.output
        )
        self.measuring = Measuring(
            self.bench.device,
            profile=profile,
            trace_steps=trace_steps,
            trace_path=None if self.output is None else RunFolder(self.output).trace,
        )
        self._destination = Destination(
            self.output, overwrite, artifacts, resumed, self.group, self.observer, self.measuring
        )

    # ---------------------------------------------------------------- a run

    def train(self) -> TrainResult:
        """Do all steps that are left.

        Ctrl-C ends the run early with everything saved. SIGTERM ends it with what resuming it takes.

        Returns:
            What the run came to; `interrupted` where Ctrl-C or SIGTERM ended it.

        Raises:
            NonFiniteLoss, ExplodingLoss: the loss is lost. Everything up to the step before is saved.
            WriteFailed: the RUN folder cannot be written.
        """
        began, result = time.monotonic(), TrainResult(self.config, self.output)
        result.model, result.tokenizer = self.bench.model, self.bench.tokenizer
        with announced(self.observer.on_note), interrupts_for(self.engine) as interrupts:
            run = dataclasses.replace(self._fresh, estimator=self.estimator)
            files, start = open_files(self._destination, run, result)
            with contextlib.closing(files):
                self.estimator_state = start.estimator_state
                check_state(self.group, start.step, self.estimator_state)
                self.observer.on_start(start.step, self.config.num_steps, self.summary())
                failure = self._run_loop(start, result, files, interrupts)
                result.notices = self.watch.notices
                result.seconds += since(began)
                result.peak_memory_bytes = memory.peak_bytes()
                with contextlib.suppress(KeyboardInterrupt), interrupts.held():
                    if self._destination.artifacts or (self.output is None and self.group.size == 1):
                        result.model = self.engine.tuned(self.bench.model)
                    done = failure is None and not result.interrupted
                    save_files(files, self._destination, result, self.estimator_state, done=done)
        learned = self.estimator.report(self.estimator_state)
        for said in filter(None, (sent(self.engine), told(self.objective), learned)):
            self.observer.on_note(said)
        self.observer.on_end()
        if failure is not None:
            if failure.of_all_ranks:
                meet(self.group)  # torchrun ends the others once one is gone, and the first is still saving
            raise failure
        return result

    def _run_loop(
        self, start: Start, result: TrainResult, files: RunFiles, interrupts: Interrupts
    ) -> MezoError | None:
        """Run the loop; return the error that ended it, if the steps before it can be saved."""
        try:
            self.watch.take_in(result.steps[start.own :], start.own)
            self._loop(start.step, result, files, interrupts)
        except Terminated:
            result.interrupted = result.terminated = True
        except StopTraining:
            result.interrupted = True
        except (Forced, WriteFailed, Apart):
            raise  # theta may be between two steps, or nothing can be written: nothing is made of it
        except KeyboardInterrupt:
            result.interrupted = True
        except NonFiniteLoss as error:
            way_back = self.watch.after_a_failure(overflowed=last_update_overflowed(self.weights))
            return naming_the_batch(error, self.train_set, self.config, len(result.steps), way_back)
        except MezoError as error:
            return error
        return None

    def _loop(self, first: int, result: TrainResult, files: RunFiles, interrupts: Interrupts) -> None:
        """Evaluate, step, record, snapshot."""
        end = self.config.num_steps
        self._audit_next()
        if first == 0 or self._evaluation_is_due(first):
            self._evaluate(result, files, first)
        with ahead(self.prepared, first, end) as batches:
            for step in range(first, end):
                with self.measuring.step():
                    began = time.monotonic()
                    with span("data"):
                        microbatches = next(batches)
                    with interrupts.held():  # a step is taken and recorded, or neither
                        values, record = self.move(step, microbatches, began)
                        with span("logging"):
                            result.steps.append(record)
                            files.step(values, record)
                    with span("logging"):
                        self.observer.on_step(record)
                        self.watch.step(record, self.observer.on_note, files.note)
                if self._evaluation_is_due(step + 1):
                    self._evaluate(result, files, step + 1)
                if step + 1 < end and files.snapshot_is_due(step + 1):
                    with interrupts.held():
                        files.snapshot(self.estimator_state)
                    self.observer.on_snapshot(step + 1)
                    self._audit_next()
        self._evaluate(result, files, end)

    def prepared(self, step: int) -> list[Any]:
        """The step's microbatches, ready for the engine. Runs beside the step before: a function of `step` alone."""
        c = self.config
        batches = self.train_set.microbatches(step, c.batch_size, c.gradient_accumulation, c.seed)
        return self.engine.prepare_each(batches)

    def move(self, step: int, microbatches: list[Any], began: float) -> tuple[tuple[float, ...], StepRecord]:
        """Move theta once; the values of the trajectory's record, and the record for people."""
        before, c = dataclasses.replace(self.engine.counts), self.config
        draw = draw_of(c.seed, step, directions_at(c, step))
        update, losses, self.estimator_state = mezo_step(
            self.engine, self.estimator, microbatches, draw, learning_rate(c, step), self.estimator_state
        )
        with span("logging"):
            spent = self.engine.counts.since(before)
            return update.values, StepRecord(
                step=step,
                loss=math.fsum(losses) / len(losses),
                learning_rate=update.learning_rate,
                projected_grads=tuple(d.projected_grad for d in update.directions),
                seconds=since(began),
                tokens=spent.computed,
                tokens_asked=spent.asked,
                tokens_reused=spent.reused,
                seconds_saved=spent.seconds_saved,
                profile=self.measuring.taken(),
                losses=tuple(losses) if self._fresh.remembers else None,
                **population_of(self.estimator, self.objective, losses),
            )

    def _audit_next(self) -> None:
        if self.config.audit:
            self.engine.audit_next()

    def close(self) -> None:
        """End a serving engine that was started for the run. Without one there is nothing to end."""
        self.engine.close()

    # ---------------------------------------------------------------- evaluation

    def evaluate(
        self, dataset: EncodedDataset | None = None, *, step: int = 0, split: str = "validation"
    ) -> EvalRecord:
        """The task's metrics and the loss at theta.

        Args:
            dataset: the examples; by default the validation set.
            step: for the record: the steps done.
            split: for the record: what the examples are.

        Raises:
            MezoError: there are no examples, or a metric is not available for them.
        """
        if (examples := self.validation_set if dataset is None else dataset) is None:
            raise MezoError("there are no validation examples to evaluate on")
        compute, answers = self.compute_metrics, ModelAnswers(writes=not self.task.has_candidates)
        record = evaluate(
            self.engine,
            examples,
            self.objective,
            has_candidates=self.task.has_candidates,
            metrics=self.task.metrics,
            step=step,
            split=split,
            answers=answers if compute else None,
        )
        return with_computed(record, compute, examples, answers) if compute else record

    def _evaluation_is_due(self, done: int) -> bool:
        every = self.config.eval_every
        return every > 0 and done % every == 0 and done < self.config.num_steps

    def _evaluate(self, result: TrainResult, files: RunFiles, step: int) -> None:
        if not result.evals or result.evals[-1].step != step:
            self._samples.take(step, files, self.observer.on_note)
            if self.validation_set is not None:
                record = self.evaluate(step=step)
                result.evals.append(record)
                files.evaluation(record)
                self.observer.on_eval(record)

    # ---------------------------------------------------------------- words

    def summary(self) -> str:
        """The run in a sentence: the model, what of it is tuned, and the main settings."""
        c = self.config
        on = f" on {tuned_modules(self.bench.model)}" if c.tuning in ("lora", "norms") else ""
        return (
            f"{c.model}, {c.tuning}{on}: {self.weights.num_elements:,} of {num_parameters(self.bench.model):,} "
            f"parameters tuned on {len(self.train_set):,} examples; {self.objective.name}, batch {c.batch_size}, "
            f"learning rate {c.learning_rate} ({c.schedule}), epsilon {c.epsilon:g}, {c.num_steps:,} steps"
        )
