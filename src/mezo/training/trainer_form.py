"""The arguments of transformers' Trainer, as those of this package's."""

import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.data.from_config import task_of, training_set
from mezo.errors import MezoError
from mezo.util.other_names import ANSWERS

# TrainingArguments that a run of forward passes takes over, by the same names or others'.
_TAKEN = (
    *("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "lr_scheduler_type"),
    *("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "seed"),
)
# Those that say how often something is done, and how long; and those that callbacks read.
_READ = (
    *("output_dir", "max_steps", "num_train_epochs", "warmup_steps", "warmup_ratio", "logging_steps"),
    *("logging_strategy", "logging_first_step", "eval_strategy", "eval_steps", "save_strategy", "save_steps"),
    *("metric_for_best_model", "greater_is_better", "report_to", "run_name", "use_cpu"),
)
# Those that change no number of such a run: how backpropagation, loading and logging are done.
_IDLE = (
    *("gradient_checkpointing", "gradient_checkpointing_kwargs", "per_device_eval_batch_size", "do_train", "do_eval"),
    *("eval_accumulation_steps", "disable_tqdm", "log_level", "log_level_replica", "remove_unused_columns"),
    *("ddp_find_unused_parameters", "ddp_timeout", "save_total_limit", "save_only_model", "use_cache"),
    *("logging_nan_inf_filter", "skip_memory_metrics", "project", "eval_on_start", "local_rank"),
)  # fmt: skip


@dataclass(frozen=True)
class TrainerForm:
    """What `MeZOTrainer` may be given by the names of transformers' Trainer."""

    model: Any = None  # an object, or a path
    args: Any = None  # a MeZOConfig, or TrainingArguments
    train_dataset: Any = None  # in any form that MeZODataset takes
    eval_dataset: Any = None

    def config(
        self, config: MeZOConfig | None, *, resuming: bool
    ) -> tuple[MeZOConfig | None, Path | None, "TrainerForm"]:
        """The run's config; the output folder, if the arguments name one; and the form, its model an object or None.

        Raises MezoError for arguments of which such a run has nothing.
        """
        if self.args is not None and config is not None:
            raise MezoError("args= and config= are both the settings of the run: give one of them")
        own = config is not None  # the older form, whose config says what the model is
        config, output, form = self.args if config is None else config, None, self
        if isinstance(self.model, str | PathLike):
            form = replace(self, model=None)
        if config is not None and not isinstance(config, MeZOConfig):
            config, output = self._from_arguments(config)
        if config is None and (resuming or self.model is None):
            if resuming and form is not self:
                raise MezoError(
                    "a path as model= of a run to resume needs the run's settings: give args=, too"
                )
            return None, None, form
        return (config if own and config else self._of_the_model(config or MeZOConfig.build())), output, form

    def _of_the_model(self, config: MeZOConfig) -> MeZOConfig:
        """The config, which says of the model what the model is."""
        if isinstance(self.model, str | PathLike):
            return config.model_copy(update={"model": str(self.model)})
        if self.model is None:
            return config
        dtype = str(self.model.dtype).removeprefix("torch.")
        if "dtype" in config.model_fields_set and config.dtype != dtype:
            raise MezoError(
                f"dtype={config.dtype!r}: the model given is in {dtype}: leave it out, or convert the model"
            )
        name = getattr(self.model, "name_or_path", "") or config.model
        return config.model_copy(update={"dtype": dtype, "model": name})

    def data(self, config: MeZOConfig) -> tuple[MeZODataset | None, MeZODataset | None]:
        """The training and the validation examples that were given, read as the config says."""
        train, held_out = self.train_dataset, self.eval_dataset
        if train is not None and not isinstance(train, MeZODataset):
            train = training_set(config, task_of(config, train), train)
        if held_out is not None and not isinstance(held_out, MeZODataset):
            task = task_of(config, held_out) if train is None else train.task
            held_out = MeZODataset(
                held_out,
                task=task,
                split="validation",
                seed=config.eval_seed,
                max_examples=config.eval_examples,
            )
        return train, held_out

    def _from_arguments(self, arguments: Any) -> tuple[MeZOConfig, Path | None]:
        from transformers import TrainingArguments

        if not isinstance(arguments, TrainingArguments):
            raise MezoError(
                f"args: expected a MeZOConfig or transformers.TrainingArguments, found {arguments!r:.200}"
            )
        _refuse_others(arguments)
        settings = {name: getattr(arguments, name) for name in _TAKEN}
        # as "batch_size", which counts all processes'
        settings["per_device_train_batch_size"] *= arguments.world_size
        settings["batch_size"] = settings.pop("per_device_train_batch_size")
        warm = float(getattr(arguments, "warmup_ratio", None) or arguments.warmup_steps or 0)
        name = str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type))
        if name == "constant":  # has no warm-up there, whatever the arguments say of one
            warm = 0.0
        steps = arguments.max_steps
        if steps <= 0:
            examples = self._examples(MeZOConfig.build(batch_size=settings["batch_size"]))
            rows = settings["batch_size"] * settings["gradient_accumulation_steps"]
            epoch = examples / min(rows, examples)
            steps = math.ceil(arguments.num_train_epochs * epoch)
        else:
            epoch = 0.0

        num_steps = steps

        def every(strategy: Any, steps: float) -> int:
            if str(getattr(strategy, "value", strategy)) not in ("steps", "epoch"):
                return 0
            if str(getattr(strategy, "value", strategy)) == "steps":
                # below 1: a share of the run
                return max(1, math.ceil(steps * num_steps) if steps < 1 else int(steps))
            if not epoch:
                raise MezoError(
                    "TrainingArguments: a strategy of 'epoch' beside max_steps: give a number of steps"
                )
            return max(1, math.ceil(epoch))

        settings["num_steps"] = num_steps
        if arguments.use_cpu:
            settings["device"] = "cpu"
        settings["warmup_steps"] = math.ceil(warm * num_steps) if warm < 1 else int(warm)
        settings["eval_every"] = every(
            arguments.eval_strategy, arguments.eval_steps or arguments.logging_steps
        )
        settings["snapshot_every"] = every(arguments.save_strategy, arguments.save_steps)
        config = MeZOConfig.build(**settings)
        return config, None if arguments.output_dir is None else Path(arguments.output_dir)

    def _examples(self, config: MeZOConfig) -> int:
        if self.train_dataset is None:
            raise MezoError("TrainingArguments: num_train_epochs needs train_dataset=: give it, or max_steps")
        train, _ = self.data(config)
        return len(train or ())


def _refuse_others(arguments: Any) -> None:
    """Raises MezoError for an argument that is not at its default, and that such a run has nothing of."""
    for field in fields(arguments):
        made: Callable[[], Any] | Any = field.default_factory
        default = field.default if made is MISSING else made()
        value = getattr(arguments, field.name)
        skipped = field.name.startswith(("dataloader_", "hub_", "fsdp", "accelerator", "_"))
        skipped = skipped and field.name != "dataloader_drop_last"
        if field.name == "data_seed" and value == arguments.seed:
            continue
        if field.name in (*_TAKEN, *_READ, *_IDLE) or skipped or not field.init:
            continue
        if value == default or (value in (None, False, "", [], {}) and default in (None, False, "", [], {})):
            continue
        why = ANSWERS.get(field.name, "a run of forward passes has nothing of it: leave it at its default")
        raise MezoError(f"TrainingArguments: {field.name}={value!r:.80}: {why}")
    reports = arguments.report_to
    if reports and reports not in ("none", ["none"]):
        raise MezoError(f"TrainingArguments: report_to={reports!r:.80}: {ANSWERS['report_to']}")


def one_of(name: str, ours: Any, theirs: Any) -> Any:
    """What was given by our name or by transformers'."""
    if ours is not None and theirs is not None:
        raise MezoError(
            f"{name}= was given twice, also by the name that transformers' Trainer has for it: give one"
        )
    return theirs if ours is None else ours
