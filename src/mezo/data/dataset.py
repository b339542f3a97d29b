"""`MeZODataset`: raw examples of a task, read, checked and sampled, ready to be tokenised."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mezo.data.encoded import EncodedDataset
from mezo.data.encoding import Kind, encode
from mezo.data.lazy import LazyExamples, MappedRows
from mezo.data.sampling import share_of, shots, sizes_of, split_indices, subset
from mezo.data.sources import canonical, has_splits, load_rows, read_source
from mezo.errors import MezoError, MissingSplit
from mezo.tasks import Row, Task, task_for
from mezo.util import plugins

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Source = Any  # a path, a name, a list of dicts, a data set, a frame, a dict of one of these a split, or None


class MeZODataset:
    """The examples of one split of a data set, for one task.

    Args:
        source: a file of rows (.jsonl, .json, .csv, .tsv, .parquet, .arrow, .txt; .gz of the text formats) or a glob of
            such files; a folder of {split}.jsonl or other files, or one that `save_to_disk` wrote; a list of dicts; a
            `datasets.Dataset`, DatasetDict or IterableDataset; a pandas or polars frame; a data set on the Hugging Face
            Hub as name, name:config or name:config@revision; or None for the task's own data.
        tokenizer: none is needed; accepted so that `MeZODataset(path, tokenizer)` means what it says.
        task: a Task, or what `mezo.tasks.task_for` takes: a name in TASKS, a YAML file, or module:Class. "auto": the one
            whose fields the rows have.
        split: "train", "validation" (also found as valid, val, dev) or "test". A single file or list is taken as
            the split that is asked for.
        seed: of every random choice.
        eval_seed: of what is held out by `split_sizes`; default: `seed`.
        max_examples: a random subset of this size; all if there are fewer.
        shots_per_class: a random subset of this many examples of every class; all of a class that has fewer, with a
            MezoWarning. The train size of `split_sizes` does not bound it.
        split_sizes: (train, validation, test), none shared: validation from the data's training
            split, train from the rest of that, test from the data's test split (or its validation split, where
            there is no other); all three from a single file or list. (1000, 500, 1000) are the paper's sizes. "10%": this
            share of the training rows for validation, the others to train on.

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
        tokenizer: Any = None,
        *,
        task: str | Task = "auto",
        split: str = "train",
        seed: int = 0,
        eval_seed: int | None = None,
        max_examples: int | None = None,
        shots_per_class: int | None = None,
        split_sizes: tuple[int, int, int] | str | None = None,
    ) -> None:
        self.tokenizer, self.split = tokenizer, split
        if isinstance(task, str):
            plugins.trust("task", task)
        asked = task_for(task) if isinstance(task, str) else task
        sizes = split_sizes
        if isinstance(sizes, str):
            share_of(sizes)  # a mistake in it is said before anything is read
        whole = not has_splits(source, asked)
        if (
            isinstance(sizes, str) and canonical(split) == "test"
        ):  # a share holds out validation examples alone
            if whole:
                raise MissingSplit(
                    f"split_sizes={sizes!r} draws train and validation: there is no split 'test'"
                )
            sizes = None
        rows, found, self.words = _loaded(source, asked, split, sizes, max_examples, whole=whole)
        places: Sequence[int] = range(len(rows))
        if sizes is not None:
            held_by = seed if eval_seed is None else eval_seed
            sizes = sizes_of(sizes, len(rows), all_left=shots_per_class is not None)
            places = split_indices(len(rows), canonical(split), sizes, seed, whole=whole, eval_seed=held_by)
        if found.fits:  # on the training rows, whatever split this is
            apart = not whole and sizes is None and canonical(split) != "train"
            found = found.fitted(load_rows(source, found, "train") if apart else rows)
            if self.words:
                self.words += f", classes {', '.join(name for (name,) in found.classes[:12])}"
        self.task = found
        rows = _at(rows, places)
        _check_fields(self.task, rows)
        self.rows = _at(rows, _chosen(self.task, rows, seed, max_examples, shots_per_class))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """The raw fields of an example."""
        return self.rows[index].fields

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (row.fields for row in self.rows)

    def encode(self, tokenizer: "PreTrainedTokenizerBase", kind: Kind, max_length: int) -> EncodedDataset:
        """Tokenise for a "causal" or "masked" model, no row longer than `max_length` tokens."""
        if isinstance(self.rows, MappedRows):
            one = lambda row: encode(self.task, [row], tokenizer, kind, max_length)[0]  # noqa: E731
            return EncodedDataset(LazyExamples(self.rows, one))
        return EncodedDataset(tuple(encode(self.task, self.rows, tokenizer, kind, max_length)))


def _loaded(
    source: Source, task: Task, split: str, sizes: Any, most: int | None, *, whole: bool
) -> tuple[Sequence[Row], Task, str | None]:
    """The rows of a split, or with `sizes` those that it is drawn from."""
    if sizes is None or whole:
        return read_source(source, task, split, most)
    if canonical(split) != "test":
        return read_source(source, task, "train", most)
    try:
        return read_source(source, task, "test", most)
    except MissingSplit:
        return read_source(source, task, "validation", most)


def _at(rows: Sequence[Row], places: Sequence[int]) -> Sequence[Row]:
    if isinstance(rows, MappedRows):
        return rows.only(places)
    return [rows[i] for i in places]


def _check_fields(task: Task, rows: Sequence[Row]) -> None:
    """Raises MezoError for a row that lacks a field of the task; of a large table, its first row stands for all."""
    for row in rows[:1] if isinstance(rows, MappedRows) else rows:
        for name in task.fields:
            if name not in task.optional:
                row.value(name)
        if not isinstance(rows, MappedRows):
            task.label(row)


def _chosen(
    task: Task, rows: Sequence[Row], seed: int, max_examples: int | None, shots_per_class: int | None
) -> Sequence[int]:
    if max_examples is not None and shots_per_class is not None:
        raise MezoError("max_examples and shots_per_class exclude each other: give one of them")
    for name, value in (("max_examples", max_examples), ("shots_per_class", shots_per_class)):
        if value is not None and value < 1:
            raise MezoError(f"expected {name} to be 1 or more, found {value}")
    if max_examples is not None:
        return subset(len(rows), max_examples, seed)
    if shots_per_class is not None:
        labels = [task.label(row) for row in rows]
        classes = [label for label in labels if label is not None]
        words = task.label_words or tuple(spellings[0] for spellings in task.classes)
        if not words or len(classes) < len(labels):
            raise MezoError(
                f"shots_per_class needs classes, which task {task.name!r} does not have: use max_examples"
            )
        return shots(classes, words, shots_per_class, seed)
    return range(len(rows))
