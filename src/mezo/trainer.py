"""The training loop: evaluate, step, log, save."""

import contextlib
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mezo
from mezo import memory, noise
from mezo.algorithm import NonFiniteLoss, mezo_step
from mezo.card import write_card
from mezo.config import MeZOConfig
from mezo.data import EncodedDataset, MeZODataset
from mezo.errors import MezoError, MissingSplit
from mezo.evaluation import evaluate
from mezo.events import EvalRecord, Observer, StepRecord
from mezo.interrupts import Interrupts
from mezo.models import LoadedModel, kind_of, load
from mezo.noise.spec import VERSION as NOISE_VERSION
from mezo.objectives import OBJECTIVES
from mezo.plots import write_plots
from mezo.run import MetricsWriter, RunFolder, write_text
from mezo.scoring import Example
from mezo.setup import encode, estimator_for, learning_rate, objective_for, set_up
from mezo.tasks import Task, task_for
from mezo.trajectory import TrajectoryWriter
from mezo.tuning import save
from mezo.weights import fingerprint


class MezoWarning(UserWarning):
    """Something that will probably not do what its user wants."""


class WarningObserver(Observer):
    """Passes notes on as Python warnings: for runs that nobody watches otherwise."""

    def on_note(self, text: str) -> None:
        if text.startswith("warning: "):
            warnings.warn(text.removeprefix("warning: "), MezoWarning, stacklevel=4)


@dataclass
class TrainResult:
    """What a run came to."""

    config: MeZOConfig
    output: Path | None
    steps: list[StepRecord] = field(default_factory=list)
    evals: list[EvalRecord] = field(default_factory=list)
    interrupted: bool = False
    trajectory: Path | None = None
    model: Any = None  # the tuned model itself, with its adapter if it has one
    tokenizer: Any = None
    peak_memory_bytes: int = 0
    seconds: float = 0.0

    @property
    def losses(self) -> list[float]:
        """The mean loss of each step's probes."""
        return [s.loss for s in self.steps]

    @property
    def metrics(self) -> dict[str, float | int | None]:
        """First and last evaluation, and the share of steps whose every projected gradient was 0."""
        first, last = (self.evals[0], self.evals[-1]) if self.evals else (None, None)
        zero = sum(not any(s.projected_grads) for s in self.steps)
        return {
            "steps": len(self.steps),
            "accuracy_before": first and first.accuracy,
            "accuracy_after": last and last.accuracy,
            "loss_before": first and first.loss,
            "loss_after": last and last.loss,
            "zero_gradient_fraction": zero / len(self.steps) if self.steps else 0.0,
            "peak_memory_bytes": self.peak_memory_bytes,
            "seconds": self.seconds,
        }


class MeZOTrainer:
    """Tunes one model by one config.

    train, validation: default to the config's data (validation is optional: a folder without that
    split, or a single file, trains without evaluation). model, tokenizer: objects instead of the
    config's model; the model is changed in place. output: the RUN folder; None writes nothing.

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
    ):
        self.config, self.observer = config, observer or WarningObserver()
        self.output, self.overwrite = None if output is None else Path(output), overwrite
        task = train.task if train is not None else task_for(config.task, config.label_words, config.template)
        self.objective = objective_for(config, task)
        self.has_candidates = task.has_candidates
        self._advise()
        own_data = train is None
        train = train or MeZODataset(
            config.data,
            task=task,
            split="train",
            seed=config.seed,
            max_examples=config.train_examples,
            shots_per_class=config.shots_per_class,
        )
        if validation is None and own_data:
            validation = self._own_validation(config, task)
        if config.batch_size > len(train):
            raise MezoError(
                f"batch_size={config.batch_size} is larger than the training set of {len(train)} examples; "
                f"use a batch of {len(train)} or less"
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
                for step in range(config.num_steps):
                    batch = self.train_set.batch(step, config.batch_size, config.seed)
                    with interrupts.held():
                        result.steps.append(self._step(step, batch, files))
                    self.observer.on_step(result.steps[-1])
                    if (
                        config.eval_every
                        and (step + 1) % config.eval_every == 0
                        and step + 1 < config.num_steps
                    ):
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

    def _step(self, step: int, batch: Sequence[Example], files: "_Files | None") -> StepRecord:
        config = self.config
        began, tokens = time.monotonic(), self.engine.tokens_computed
        update, losses = mezo_step(
            self.engine,
            self.estimator,
            batch,
            step=step,
            run_seed=config.seed,
            num_directions=config.num_directions,
            learning_rate=learning_rate(config, step),
        )
        slopes = tuple(d.projected_grad for d in update.directions)
        record = StepRecord(
            step=step,
            loss=math.fsum(losses) / len(losses),
            learning_rate=update.learning_rate,
            projected_grads=slopes,
            seconds=time.monotonic() - began,
            tokens=self.engine.tokens_computed - tokens,
        )
        if files is not None:
            files.trajectory.append(slopes)
            files.metrics.write(record)
        return record

    def _naming_the_batch(self, error: NonFiniteLoss, step: int) -> NonFiniteLoss:
        rows = self.train_set.batch_indices(step, self.config.batch_size, self.config.seed)
        shown = ", ".join(map(str, rows[:16])) + (", ..." if len(rows) > 16 else "")
        return NonFiniteLoss(f"{error} (batch: training examples {shown}, counted from 0)")

    # ---------------------------------------------------------------- evaluation

    def evaluate(
        self, dataset: EncodedDataset | None = None, *, step: int = 0, split: str = "validation"
    ) -> EvalRecord:
        """Accuracy and loss at theta. The loss is the objective's; for accuracy, the candidates' cross-entropy."""
        examples = dataset if dataset is not None else self.validation_set
        if examples is None:
            raise MezoError("there are no validation examples to evaluate on")
        loss = OBJECTIVES["candidate-ce"] if self.objective.name == "accuracy" else self.objective
        return evaluate(
            self.engine, examples, loss, has_candidates=self.has_candidates, step=step, split=split
        )

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
            TrajectoryWriter(run.trajectory, self.header(), self.config.num_directions),
            MetricsWriter(run.metrics),
        )

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
        target = files.run.model if self.config.tuning == "full" else files.run.adapter
        save(self.bench.model, self.bench.tokenizer, target)
        write_plots(files.run)
        write_card(files.run, result)

    # ---------------------------------------------------------------- words

    def summary(self) -> str:
        c = self.config
        return (
            f"{c.model}, {c.tuning}: {self.weights.num_elements:,} of {sum(p.numel() for p in self.bench.model.parameters()):,} "
            f"parameters tuned on {len(self.train_set):,} examples; {self.objective.name}, batch {c.batch_size}, "
            f"learning rate {c.learning_rate:g} ({c.schedule}), epsilon {c.epsilon:g}, {c.num_steps:,} steps"
        )

    def _advise(self) -> None:
        c = self.config
        if c.tuning == "lora" and c.learning_rate < 1e-5 and not c.normalize_perturbations:
            self.observer.on_note(
                f"warning: a learning rate of {c.learning_rate:g} will hardly move a LoRA adapter, which starts at zero; "
                f"the paper uses {MeZOConfig.paper('roberta', 'lora').learning_rate:g} (RoBERTa) and "
                f"{MeZOConfig.paper('opt', 'lora').learning_rate:g} (OPT)"
            )

    def _own_validation(self, config: MeZOConfig, task: Task) -> MeZODataset | None:
        if config.data is not None and Path(config.data).is_file():
            return None
        try:
            return MeZODataset(
                config.data,
                task=task,
                split="validation",
                seed=config.seed,
                max_examples=config.eval_examples,
            )
        except MissingSplit:
            return None


@dataclass(frozen=True)
class _Files:
    run: RunFolder
    trajectory: TrajectoryWriter
    metrics: MetricsWriter
