"""Callbacks of transformers' Trainer, told of a run as they are there."""

import tempfile
from collections.abc import Sequence
from typing import Any

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import EvalRecord, Observer, StepRecord, StopTraining


class Callbacks(Observer):
    """Tells transformers' callbacks, and stops the run after a step when one of them says so.

    Args:
        callbacks: `transformers.TrainerCallback` objects, or classes of them. They hear of on_train_begin, on_step_begin,
            on_step_end, on_log, on_evaluate, on_save (of a snapshot) and on_train_end.
        arguments: TrainingArguments for them to read; None for some with the settings of `config`.
        config: of the run.
        shown: what each event is given by name: model, processing_class.
        examples: of the training set, by which epochs are counted.

    Of what they set in the control, should_training_stop counts. Raises MezoError for what is no callback.
    """

    def __init__(
        self,
        callbacks: Sequence[Any],
        arguments: Any,
        config: MeZOConfig,
        shown: dict[str, Any],
        examples: int,
    ) -> None:
        from transformers import TrainerCallback, TrainerControl, TrainerState

        made = [each() if isinstance(each, type) else each for each in callbacks]
        for each in made:
            if not isinstance(each, TrainerCallback):
                raise MezoError(
                    f"callbacks: expected transformers.TrainerCallback objects, found {each!r:.200}"
                )
        self.arguments = arguments or _arguments(config)
        self.callbacks, self.shown = made, shown
        self.epoch_steps = examples / min(config.batch_size * config.gradient_accumulation, examples)
        self.every = max(1, int(self.arguments.logging_steps)) if arguments is not None else 1
        self.control = TrainerControl()
        self.state = TrainerState(
            max_steps=config.num_steps,
            logging_steps=self.every,
            eval_steps=config.eval_every or config.num_steps,
            save_steps=config.snapshot_every or config.num_steps,
            train_batch_size=config.batch_size,
            epoch=0.0,
        )

    def on_start(self, first_step: int, num_steps: int, summary: str) -> None:
        self.state.max_steps, self.state.global_step = num_steps, first_step
        self.control.should_training_stop = False
        self._tell("on_init_end")
        self._tell("on_train_begin")
        if first_step < num_steps:
            self._tell("on_step_begin")

    def on_step(self, record: StepRecord) -> None:
        self._at(record.step + 1)
        self._tell("on_step_end")
        if (record.step + 1) % self.every == 0:
            self._log({"loss": record.loss, "learning_rate": record.learning_rate})
        if self.control.should_training_stop:
            raise StopTraining
        if record.step + 1 < self.state.max_steps:
            self._tell("on_step_begin")

    def on_eval(self, record: EvalRecord) -> None:
        self._at(record.step)
        found = {"loss": record.loss, **record.metrics}
        if record.accuracy is not None:
            found.setdefault("accuracy", record.accuracy)
        metrics = {f"eval_{name}": value for name, value in found.items()}
        self._log(metrics)
        self._tell("on_evaluate", metrics=metrics)
        self._note_best(metrics)
        if self.control.should_training_stop and 0 < record.step < self.state.max_steps:
            raise StopTraining

    def on_snapshot(self, step: int) -> None:
        self._tell("on_save")

    def on_end(self) -> None:
        self._tell("on_train_end")

    def _at(self, step: int) -> None:
        self.state.global_step, self.state.epoch = step, step / self.epoch_steps

    def _log(self, numbers: dict[str, float]) -> None:
        logs = {**numbers, "epoch": self.state.epoch}
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self._tell("on_log", logs=logs)

    def _note_best(self, metrics: dict[str, float]) -> None:
        """As transformers does once the callbacks have seen an evaluation: early stopping compares with it."""
        name = self.arguments.metric_for_best_model
        if name is None:
            return
        name = name if name.startswith("eval_") else f"eval_{name}"
        if name not in metrics:
            raise MezoError(f"metric_for_best_model: no evaluation has {name!r}; it has {', '.join(metrics)}")
        sign = 1 if self.arguments.greater_is_better else -1
        if self.state.best_metric is None or sign * metrics[name] > sign * self.state.best_metric:
            self.state.best_metric, self.state.best_global_step = metrics[name], self.state.global_step

    def _tell(self, event: str, **more: Any) -> None:
        for callback in self.callbacks:
            tell = getattr(callback, event)
            self.control = (
                tell(self.arguments, self.state, self.control, **self.shown, **more) or self.control
            )


def _arguments(config: MeZOConfig) -> Any:
    """What callbacks can read of a run that has no TrainingArguments."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=tempfile.gettempdir(),  # nothing is written there; it has no default in some versions
        learning_rate=config.peak_rate,
        max_steps=config.num_steps,
        per_device_train_batch_size=config.batch_size,
        seed=config.seed % 2**32,
        logging_steps=1,
        eval_strategy="steps" if config.eval_every else "no",
        eval_steps=config.eval_every or None,
        report_to="none",
        use_cpu=True,
    )
