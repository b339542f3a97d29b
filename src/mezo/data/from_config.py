"""The data that a config names."""

from pathlib import Path

from mezo.config import MeZOConfig
from mezo.data.dataset import MeZODataset
from mezo.errors import MissingSplit
from mezo.tasks import Task


def training_set(config: MeZOConfig, task: Task) -> MeZODataset:
    """The examples to tune on. Raises MezoError without any, or if they are not what the task expects."""
    return MeZODataset(
        config.data,
        task=task,
        split="train",
        seed=config.seed,
        max_examples=config.train_examples,
        shots_per_class=config.shots_per_class,
        split_sizes=config.split_sizes,
    )


def validation_set(config: MeZOConfig, task: Task) -> MeZODataset | None:
    """The examples to evaluate on; None where the data is one file that is not split, or has no such split."""
    if config.split_sizes is None and config.data is not None and Path(config.data).is_file():
        return None
    try:
        return MeZODataset(
            config.data,
            task=task,
            split="validation",
            seed=config.seed,
            max_examples=config.eval_examples,
            split_sizes=config.split_sizes,
        )
    except MissingSplit:
        return None
