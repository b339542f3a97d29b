"""The data that a config names."""

from mezo.config import MeZOConfig
from mezo.data.dataset import MeZODataset, Source
from mezo.data.sources import DEFAULT, has_splits
from mezo.errors import MissingSplit
from mezo.tasks import RowOptions, Task, task_for


def with_task(config: MeZOConfig) -> MeZOConfig:
    """The config with the task that the rows of its data are of, in place of "auto"."""
    if config.task != "auto":
        return config
    task = DEFAULT if config.data is None else training_set(config, task_of(config)).task.name
    return config.model_copy(update={"task": task})


def task_of(config: MeZOConfig, source: Source = None) -> Task:
    """The task that a config names, with its rows read as the config says. Raises MezoError as `task_for` does.

    source: the data, in place of the config's.
    """
    reading = RowOptions(
        label_words=config.label_words,
        template=config.template,
        columns=config.columns,
        splits=config.splits,
        append_eos=config.append_eos,
        parse_special=config.parse_special,
        turns=config.turns,
        metrics=config.metrics,
        data_format=config.data_format,
        prefill=config.prefill,
    )
    return task_for(
        DEFAULT if config.task == "auto" and config.data is None and source is None else config.task,
        reading=reading,
    )


def training_set(config: MeZOConfig, task: Task, source: Source = None) -> MeZODataset:
    """The examples to tune on, of `source` in place of the config's data where it is given. Raises MezoError without any, or if they are not what the task expects."""
    return MeZODataset(
        config.data if source is None else source,
        task=task,
        split="train",
        seed=config.seed,
        eval_seed=config.eval_seed,
        max_examples=config.train_examples,
        shots_per_class=config.shots_per_class,
        split_sizes=config.split_sizes,
    )


def validation_set(config: MeZOConfig, task: Task, source: Source = None) -> MeZODataset | None:
    """The examples to evaluate on, drawn by the config's `eval_seed`; None where the data have no such split."""
    source = config.data if source is None else source
    if config.split_sizes is None and not has_splits(source, task):
        return None
    try:
        return MeZODataset(
            source,
            task=task,
            split="validation",
            seed=config.eval_seed,
            max_examples=config.eval_examples,
            split_sizes=config.split_sizes,
        )
    except MissingSplit:
        return None
