"""The examples a search tunes on, and those it judges by."""

from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.data.from_config import task_of, training_set, validation_set
from mezo.data.sampling import permutation

_JUDGES = 256  # validation examples, unless the config says how many
_SHARE = 5  # of data without a validation split, one in so many is held out


def search_data(config: MeZOConfig) -> tuple[MeZODataset, MeZODataset]:
    """Training and validation examples of the config's data.

    At most 256 of the validation split unless `eval_examples` says otherwise: a trial is judged by a
    mean loss, whose error falls slowly. Data without that split (a single file) give up a fifth of
    their training examples, by seed.
    """
    train = training_set(config, task_of(config))
    task = train.task
    most = config.eval_examples or _JUDGES
    validation = validation_set(config.model_copy(update={"eval_examples": most}), task)
    if validation is not None:
        return train, validation
    order = permutation(len(train), "held out", config.seed).tolist()
    held_out = set(order[: min(most, max(1, len(train) // _SHARE))])
    rows = [row.fields for row in train.rows]
    return (
        MeZODataset([row for i, row in enumerate(rows) if i not in held_out], task=task),
        MeZODataset([row for i, row in enumerate(rows) if i in held_out], task=task, split="validation"),
    )
