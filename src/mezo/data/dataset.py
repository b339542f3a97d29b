"""`MeZODataset`: raw examples of a task, read, checked and sampled, ready to be tokenised."""

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from mezo.data.encoded import EncodedDataset
from mezo.data.encoding import Kind, encode
from mezo.data.sampling import shots, split_indices, subset
from mezo.data.sources import canonical, has_splits, load_rows
from mezo.errors import MezoError, MissingSplit
from mezo.tasks import Row, Task, task_for

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Source = str | PathLike[str] | Sequence[Mapping[str, Any]] | Mapping[str, Any] | None


class MeZODataset:
    """The examples of one split of a data set, for one task.

    Args:
        source: a .jsonl or .json file (or .gz of it); a folder of {split}.jsonl files; a list of dicts; a
            `datasets.Dataset`; the name of a data set on the Hugging Face Hub; or None for the task's own data.
        task: a Task, or what `mezo.tasks.task_for` takes: a name in TASKS, a YAML file, or module:Class.
        split: "train", "validation" (also found as valid, val, dev) or "test". A single file or list is taken as
            the split that is asked for.
        seed: of every random choice.
        max_examples: a random subset of this size; all if there are fewer.
        shots_per_class: a random subset of this many examples of every class; all of a class that has fewer, with a
            MezoWarning. The train size of `split_sizes` does not bound it.
        split_sizes: (train, validation, test) drawn by `seed`, none shared: validation from the data's training
            split, train from the rest of that, test from the data's test split (or its validation split, where
            there is no other); all three from a single file or list. (1000, 500, 1000) are the paper's sizes.

    Raises:
        MezoError: anything in the data is not as the task expects; it names the row.

    Example:
        >>> import mezo
        >>> rows = [{"prompt": "Ticket: I was charged twice\\nTeam:", "completion": " billing"}]
        >>> len(mezo.MeZODataset(rows))
        1
    """

    def __init__(
        self,
        source: Source,
        *,
        task: str | Task = "prompt-completion",
        split: str = "train",
        seed: int = 0,
        max_examples: int | None = None,
        shots_per_class: int | None = None,
        split_sizes: tuple[int, int, int] | None = None,
    ) -> None:
        self.task = task_for(task) if isinstance(task, str) else task
        self.split = split
        if split_sizes is None:
            rows = load_rows(source, self.task, split)
        else:
            rows = _drawn(source, self.task, split, split_sizes, seed, all_left=shots_per_class is not None)
        labels = [_checked(self.task, row) for row in rows]
        self.rows = [rows[i] for i in _chosen(self.task, labels, seed, max_examples, shots_per_class)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """The raw fields of an example."""
        return self.rows[index].fields

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (row.fields for row in self.rows)

    def encode(self, tokenizer: "PreTrainedTokenizerBase", kind: Kind, max_length: int) -> EncodedDataset:
        """Tokenise for a "causal" or "masked" model, no row longer than `max_length` tokens."""
        return EncodedDataset(tuple(encode(self.task, self.rows, tokenizer, kind, max_length)))


def _drawn(
    source: Source, task: Task, split: str, sizes: tuple[int, int, int], seed: int, *, all_left: bool
) -> list[Row]:
    """The rows of a split drawn by size; all_left: those to train on are all that is not held out."""
    split, whole = canonical(split), not has_splits(source, task)
    if whole:
        rows = load_rows(source, task, split)
    elif split == "test":
        try:
            rows = load_rows(source, task, "test")
        except MissingSplit:
            rows = load_rows(source, task, "validation")
    else:
        rows = load_rows(source, task, "train")
    train, validation, test = sizes
    sizes = (len(rows) if all_left else train, validation, test)
    return [rows[i] for i in split_indices(len(rows), split, sizes, seed, whole=whole)]


def _checked(task: Task, row: Row) -> int | None:
    for name in task.fields:
        row.value(name)
    return task.label(row)


def _chosen(
    task: Task, labels: list[int | None], seed: int, max_examples: int | None, shots_per_class: int | None
) -> Sequence[int]:
    if max_examples is not None and shots_per_class is not None:
        raise MezoError("max_examples and shots_per_class exclude each other: give one of them")
    for name, value in (("max_examples", max_examples), ("shots_per_class", shots_per_class)):
        if value is not None and value < 1:
            raise MezoError(f"expected {name} to be 1 or more, found {value}")
    if max_examples is not None:
        return subset(len(labels), max_examples, seed)
    if shots_per_class is not None:
        classes = [label for label in labels if label is not None]
        words = task.label_words or tuple(spellings[0] for spellings in task.classes)
        if not words or len(classes) < len(labels):
            raise MezoError(
                f"shots_per_class needs classes, which task {task.name!r} does not have: use max_examples"
            )
        return shots(classes, words, shots_per_class, seed)
    return range(len(labels))
