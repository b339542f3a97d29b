"""Fine-tuning by backpropagation (the paper's "FT"), on what MeZO would be tuned on.

Task, examples, their order, objective, tuning mode, schedule and evaluation are those of the same
config under `mezo train`; only the update differs: torch's AdamW or SGD on the full gradient.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from mezo.algorithm import check_finite
from mezo.baselines.gradients import DIFFERENTIABLE, loss_of
from mezo.build.schedule import learning_rate, objective_for
from mezo.build.setup import encode, load_model, set_up, with_dtype
from mezo.config import MeZOConfig
from mezo.data.from_config import task_of, training_set, validation_set
from mezo.errors import MezoError
from mezo.events import EvalRecord, Observer, StepRecord, WarningObserver
from mezo.objectives import OBJECTIVES
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import MetricsWriter
from mezo.runs.plots import write_plots
from mezo.runs.result import TrainResult
from mezo.runs.summary import Summary, write_summary
from mezo.scoring import Example, pose
from mezo.training.evaluation import evaluate
from mezo.tuning import save
from mezo.util import memory
from mezo.util.atomic_files import write_text
from mezo.util.clock import since
from mezo.util.interrupts import Interrupts
from mezo.util.registry import look_up

# (parameter groups, learning rate) -> optimizer; momentum is left to AdamW
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
# The learning rates of the published code's examples for Adam, by tuning mode; for norms, LoRA's.
LEARNING_RATES = {"full": 1e-5, "lora": 1e-4, "prefix": 1e-2, "norms": 1e-4}


class FineTuner:
    """One model, ready to be tuned by gradients.

    optimizer: "adamw" or "sgd". max_grad_norm: the gradient is scaled down to this norm; 0: never.
    dropout: leave the model's dropout on during steps (MeZO's forward passes have none).

    Raises MezoError for an objective without a gradient, and wherever `MeZOTrainer` does.
    """

    def __init__(
        self,
        config: MeZOConfig,
        *,
        optimizer: str = "adamw",
        max_grad_norm: float = 1.0,
        dropout: bool = False,
        observer: Observer | None = None,
    ):
        if config.learning_rate == "auto":
            raise MezoError("learning_rate='auto' is of forward passes alone: give the optimizer's own rate")
        make, config = look_up(OPTIMIZERS, optimizer, "optimizer"), with_dtype(config)
        self.config, self.observer = config, observer or WarningObserver()
        self.name, self.max_grad_norm, self.dropout = optimizer, max_grad_norm, dropout
        train = training_set(config, task_of(config))
        task = train.task
        objective = objective_for(config, task)
        look_up(DIFFERENTIABLE, objective.name, "differentiable objective")
        self.task, self.objective = task, OBJECTIVES[objective.name]
        validation = validation_set(config, task)
        loaded = load_model(config, self.observer.on_note)
        self.train_set = encode(train, loaded, config)
        self.validation_set = None if validation is None else encode(validation, loaded, config)
        self.pad, self.tokenizer = loaded.pad_token_id, loaded.tokenizer
        # the engine evaluates; its own optimizer is never asked
        bench = set_up(config.model_copy(update={"optimizer": "sgd"}), loaded, self.objective)
        self.model, self.engine = bench.model, bench.engine
        self.parameters = [t.tensor for t in bench.weights.tunables]
        self.optimizer = make(_groups(self.parameters, config.weight_decay), lr=config.peak_rate)
        if config.dtype != "float32":
            self.observer.on_note(
                f"warning: {config.dtype} weights lose most of a small update; compare with --dtype float32"
            )

    def step(self, number: int) -> StepRecord:
        """One update. The record's projected gradient is the slope along the gradient itself: its norm.

        Raises NonFiniteLoss, with the weights untouched, if the loss or the gradient is not finite.
        """
        began, c = time.monotonic(), self.config
        batches = self.train_set.microbatches(number, c.batch_size, c.gradient_accumulation, c.seed)
        loss, tokens = self._backward(batches)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm or math.inf))
        check_finite(number, [loss], [norm])
        rate = learning_rate(c, number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepRecord(number, loss, rate, (norm,), since(began), tokens)

    def _backward(self, microbatches: Sequence[Sequence[Example]]) -> tuple[float, int]:
        """Leaves the mean gradient of the microbatches in the parameters; their mean loss, and tokens."""
        with self._tuning():
            losses, tokens = [], 0
            for batch in microbatches:
                posed = pose(batch, answers_only=self.objective.answers_only)
                loss = loss_of(self.model, posed, self.objective, self.pad)
                (loss / len(microbatches)).backward()
                losses.append(float(loss.detach()))
                tokens += len(posed.rows) * max(map(len, posed.rows))
        return math.fsum(losses) / len(losses), tokens

    @contextlib.contextmanager
    def _tuning(self) -> Iterator[None]:
        """Inside, the tuned tensors ask for gradients, and dropout is on if it was wished for."""
        for p in self.parameters:
            p.requires_grad_(True)
        self.model.train(self.dropout)
        try:
            yield
        finally:
            self.model.eval()

    def evaluate(self, step: int) -> EvalRecord | None:
        """The task's metrics on the validation split; None without one."""
        if self.validation_set is None:
            return None
        return evaluate(
            self.engine,
            self.validation_set,
            self.objective,
            has_candidates=self.task.has_candidates,
            metrics=self.task.metrics,
            step=step,
        )

    @property
    def method(self) -> str:
        return f"{type(self.optimizer).__name__} {self.config.tuning}"


def _groups(parameters: Sequence[torch.Tensor], decay: float) -> list[dict[str, Any]]:
    """Weight decay spares vectors (biases and norms), as in a run of MeZO."""
    matrices = [p for p in parameters if p.dim() >= 2]
    vectors = [p for p in parameters if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def finetune(
    config: MeZOConfig,
    *,
    output: Path | str | None = None,
    overwrite: bool = False,
    observer: Observer | None = None,
    **options: Any,
) -> TrainResult:
    """Tune by backpropagation for the config's steps, evaluating as a run of MeZO does.

    output: a folder like a run's: config.yaml, metrics.jsonl, summary.json, plots, and the model or adapter. options:
    of `FineTuner`. Ctrl-C ends it early with everything saved.

    Raises MezoError as `FineTuner` does, and NonFiniteLoss, once everything before it is saved.
    """
    if output is not None:
        RunFolder.check(output, overwrite=overwrite)
    tuner = FineTuner(config, observer=observer, **options)
    torch.manual_seed(config.seed)  # of dropout
    result = TrainResult(config, None if output is None else Path(output))
    result.model, result.tokenizer = tuner.model, tuner.tokenizer
    run = None if output is None else _begun(tuner, output, overwrite)
    metrics = None if run is None else MetricsWriter(run.metrics)
    began, failure = time.monotonic(), None
    with Interrupts() as interrupts:
        try:
            _loop(tuner, result, metrics, interrupts)
        except KeyboardInterrupt:
            result.interrupted = True
        except MezoError as error:
            failure = error
        result.seconds = since(began)
        result.peak_memory_bytes = memory.peak_bytes()
        if run is not None and metrics is not None:
            with contextlib.suppress(KeyboardInterrupt), interrupts.held():
                metrics.close()
                save(tuner.model, tuner.tokenizer, run.adapter if config.saves_adapter else run.model)
                write_plots(run)
                write_summary(run.path, Summary(tuner.method, result.seconds, result.peak_memory_bytes))
    tuner.observer.on_end()
    if failure is not None:
        raise failure
    return result


def _begun(tuner: FineTuner, output: Path | str, overwrite: bool) -> RunFolder:
    run = RunFolder.create(output, overwrite=overwrite)
    write_text(run.config, tuner.config.model_copy(update={"optimizer": tuner.name}).to_yaml())
    return run


def _loop(
    tuner: FineTuner, result: TrainResult, metrics: MetricsWriter | None, interrupts: Interrupts
) -> None:
    config = tuner.config

    def judge(step: int) -> None:
        record = tuner.evaluate(step)
        if record is not None:
            result.evals.append(record)
            if metrics is not None:
                metrics.write(record)
            tuner.observer.on_eval(record)

    tuner.observer.on_start(0, config.num_steps, _words(tuner))
    judge(0)
    for number in range(config.num_steps):
        with interrupts.held():
            record = tuner.step(number)
            result.steps.append(record)
            if metrics is not None:
                metrics.write(record)
        tuner.observer.on_step(record)
        done = number + 1
        if done == config.num_steps or (config.eval_every and done % config.eval_every == 0):
            judge(done)


def _words(tuner: FineTuner) -> str:
    c, tuned = tuner.config, sum(p.numel() for p in tuner.parameters)
    return (
        f"{c.model}, backpropagation with {tuner.method}: {tuned:,} parameters tuned on"
        f" {len(tuner.train_set):,} examples; {tuner.objective.name}, batch {c.batch_size}, learning rate"
        f" {c.peak_rate:g} ({c.schedule}), {c.num_steps:,} steps"
    )
