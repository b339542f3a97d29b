"""The training loop: evaluate, step, log, save."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mezo
from mezo import memory, noise
from mezo.advice import StepSize, before_the_start
from mezo.algorithm import NonFiniteLoss, draw_of, mezo_step
from mezo.card import write_card
from mezo.config import MeZOConfig
from mezo.data import EncodedDataset, MeZODataset
from mezo.data.ahead import ahead
from mezo.data.configured import training_set, validation_set
from mezo.errors import MezoError
from mezo.evaluation import evaluate
from mezo.events import EvalRecord, MezoWarning, Observer, StepRecord, WarningObserver
from mezo.interrupts import Interrupts
from mezo.measuring import Counted, Measuring, write_profile
from mezo.models import LoadedModel, kind_of, load
from mezo.noise.spec import VERSION as NOISE_VERSION
from mezo.plots import write_plots
from mezo.profiling import WARM_UP, span
from mezo.result import TrainResult
from mezo.run import MetricsWriter, RunFolder, write_text
from mezo.setup import (
    directions_at,
    encode,
    estimator_for,
    learning_rate,
    most_directions,
    objective_for,
    set_up,
)
from mezo.summary import Summary, write_summary
from mezo.tasks import task_for
from mezo.trajectory import TrajectoryWriter
from mezo.tuning import save
from mezo.types import Update
from mezo.weights import fingerprint

__all__ = ["MeZOTrainer", "MezoWarning", "TrainResult"]


class MeZOTrainer:
    """Tunes one model by one config.

    train, validation: default to the config's data (validation is optional: a folder without that
    split, or a single file, trains without evaluation). model, tokenizer: objects instead of the
    config's model; the model is changed in place. output: the RUN folder; None writes nothing.
    profile: measure where each step's time goes (StepRecord.profile, RUN/profile.json).
    trace_steps: write a timeline of so many steps, after the first two, to RUN/trace.json.gz.

    Raises MezoError, before anything is written, for data, settings or a model that cannot be used.
    """

    def __init__(
        self,
        config: MeZOConfig,
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
    ):
        if trace_steps and (trace_steps < 0 or output is None):
            raise MezoError(
                f"trace_steps={trace_steps}: expected a number of steps, 1 or more, and an output= folder "
                "for the trace"
            )
        self.config, self.observer = config, observer or WarningObserver()
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
        if model is None:
            self.observer.on_note(f"loading {config.model} in {config.dtype}")
            loaded = load(
                config.model, config.dtype, config.device, config.trust_remote_code, self.observer.on_note
            )
        else:
            if tokenizer is None:
                raise MezoError("a model object needs its tokenizer: pass tokenizer=")
            loaded = LoadedModel(
                model.eval().requires_grad_(False),
                tokenizer,
                kind_of(model.config, config.model),
                config.model,
            )
        self.train_set = encode(train, loaded, config)
        self.validation_set = None if validation is None else encode(validation, loaded, config)
        noise.announce = self.observer.on_note
        self.base_fingerprint = fingerprint(loaded.model.named_parameters())
        self.bench = set_up(config, loaded, self.objective)
        self.engine, self.weights = self.bench.engine, self.bench.weights
        self.estimator = estimator_for(config, self.weights)
        self.estimator_state = self.estimator.init()
        self.step_size = StepSize(
            slopes=self.estimator.gives_slopes and config.optimizer in ("sgd", "momentum")
        )
        self.measuring = Measuring(
            next(loaded.model.parameters()).device,
            profile=profile,
            trace_steps=trace_steps,
            trace_path=None if self.output is None else RunFolder(self.output).trace,
        )

    # ---------------------------------------------------------------- the loop

    def train(self) -> TrainResult:
        """Run all steps. Ctrl-C ends the run early with everything saved; so does a non-finite loss,
        which is raised again once it is."""
        config, result = self.config, TrainResult(self.config, self.output)
        result.model, result.tokenizer = self.bench.model, self.bench.tokenizer
        files = self._open_files(result)
        began = time.monotonic()
        self.observer.on_start(0, config.num_steps, self.summary())
        failure: MezoError | None = None
        with Interrupts() as interrupts:
            try:
                self._evaluate(result, files, 0)
                with ahead(self._prepared, 0, config.num_steps) as batches:
                    for step in range(config.num_steps):
                        with self.measuring.step():
                            self._step(step, batches, result, files, interrupts.held)
                        if self._evaluation_is_due(step + 1):
                            self._evaluate(result, files, step + 1)
                self._evaluate(result, files, config.num_steps)
            except KeyboardInterrupt:
                result.interrupted = True
            except NonFiniteLoss as error:
                failure = self._naming_the_batch(error, len(result.steps))
            except MezoError as error:
                failure = error
            result.seconds = time.monotonic() - began
            result.peak_memory_bytes = memory.peak_bytes()
            with contextlib.suppress(KeyboardInterrupt), interrupts.held():
                self._save(result, files)
        self.observer.on_end()
        if failure is not None:
            raise failure
        return result

    def _prepared(self, step: int) -> list[Any]:
        """The step's microbatches, ready for the engine. Runs beside the step before: a function of `step` alone."""
        c = self.config
        batches = self.train_set.microbatches(step, c.batch_size, c.gradient_accumulation, c.seed)
        return [self.engine.prepare(batch) for batch in batches]

    def _step(
        self,
        step: int,
        batches: Iterator[Any],
        result: TrainResult,
        files: "_Files | None",
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
                    values = update.values
                    files.trajectory.append((*values, *[0.0] * (self._record_width() - len(values))))
                    files.metrics.write(record)
        with span("logging"):
            self.observer.on_step(record)
            if (warning := self.step_size.seen(record)) is not None:
                self.observer.on_note(warning)

    def _record(self, update: Update, losses: list[float], began: float, before: Counted) -> StepRecord:
        spent = Counted.of(self.engine) - before
        return StepRecord(
            step=update.step,
            loss=math.fsum(losses) / len(losses),
            learning_rate=update.learning_rate,
            projected_grads=tuple(d.projected_grad for d in update.directions),
            seconds=time.monotonic() - began,
            tokens=spent.computed,
            tokens_asked=spent.asked,
            tokens_reused=spent.reused,
            seconds_saved=spent.seconds_saved,
            profile=self.measuring.taken(),
        )

    def _naming_the_batch(self, error: NonFiniteLoss, step: int) -> NonFiniteLoss:
        c = self.config
        together = sum(
            map(len, self.train_set.microbatches(step, c.batch_size, c.gradient_accumulation, c.seed))
        )
        rows = self.train_set.batch_indices(step, together, c.seed)
        shown = ", ".join(map(str, rows[:16])) + (", ..." if len(rows) > 16 else "")
        return NonFiniteLoss(f"{error} (batch: training examples {shown}, counted from 0)")

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

    def _evaluate(self, result: TrainResult, files: "_Files | None", step: int) -> None:
        if self.validation_set is None:
            return
        record = self.evaluate(step=step)
        result.evals.append(record)
        if files is not None:
            files.metrics.write(record)
        self.observer.on_eval(record)

    # ---------------------------------------------------------------- files

    def _open_files(self, result: TrainResult) -> "_Files | None":
        if self.output is None:
            return None
        run = RunFolder.create(self.output, overwrite=self.overwrite)
        write_text(run.config, self.config.to_yaml())
        result.trajectory = run.trajectory
        return _Files(
            run,
            TrajectoryWriter(run.trajectory, self.header(), self._record_width()),
            MetricsWriter(run.metrics),
        )

    def _record_width(self) -> int:
        """Values a step has in the trajectory; where n grows, early steps have zeros at the end."""
        return self.estimator.width(most_directions(self.config))

    def header(self) -> dict[str, Any]:
        """What a replay needs besides the records."""
        return {
            "mezo": mezo.__version__,
            "noise": NOISE_VERSION,
            "base_fingerprint": self.base_fingerprint,
            "config": self.config.model_dump(mode="json"),
        }

    def _save(self, result: TrainResult, files: "_Files | None") -> None:
        if files is None:
            return
        files.trajectory.close()
        files.metrics.close()
        target = files.run.adapter if self.config.saves_adapter else files.run.model
        save(self.bench.model, self.bench.tokenizer, target)
        write_plots(files.run)
        write_card(files.run, result)
        method = f"MeZO {self.config.tuning}"
        write_summary(files.run.path, Summary(method, result.seconds, result.peak_memory_bytes))
        if result.profile:
            write_profile(files.run.profile, result.profile, self.measuring.device)
        if not self.measuring.finish():
            self.observer.on_note(f"no trace: it begins after step {WARM_UP}, and the run was over by then")

    # ---------------------------------------------------------------- words

    def summary(self) -> str:
        c = self.config
        return (
            f"{c.model}, {c.tuning}: {self.weights.num_elements:,} of {sum(p.numel() for p in self.bench.model.parameters()):,} "
            f"parameters tuned on {len(self.train_set):,} examples; {self.objective.name}, batch {c.batch_size}, "
            f"learning rate {c.learning_rate:g} ({c.schedule}), epsilon {c.epsilon:g}, {c.num_steps:,} steps"
        )


@dataclass(frozen=True)
class _Files:
    run: RunFolder
    trajectory: TrajectoryWriter
    metrics: MetricsWriter
