"""Batches of text: SST-2 sentences, or the reviews in this package."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.workload import full_batch
from mezo.data import EncodedDataset, MeZODataset
from mezo.errors import MezoError
from mezo.models.load import LoadedModel
from mezo.scoring import Example
from mezo.tasks import task_for

BATCHES = ("synthetic", "sst2")
DEMO = "the packaged reviews"
MAX_LENGTH = 512


def sentences(
    loaded: LoadedModel,
    data: str | None,
    *,
    split: str = "train",
    words: str | None = None,
    template: str | None = None,
) -> EncodedDataset:
    """The examples of `data`, a folder or file of the fields of SST-2; None: the packaged reviews.

    The prompt and the words are task sst2's own, the paper's, unless given. Raises MezoError if the
    data cannot be read or the model has no tokenizer.
    """
    if loaded.tokenizer is None:
        raise MezoError(f"{loaded.name} has no tokenizer, so no text; give --batch synthetic")
    task = task_for(
        "sst2" if data else "demo",
        [word.strip() for word in words.split(",")] if words else None,
        template.replace("\\n", "\n") if template else None,
    )
    return MeZODataset(data, task=task, split=split).encode(loaded.tokenizer, loaded.kind, MAX_LENGTH)


def source(data: str | None) -> str:
    """The name of the data for the report, without the path."""
    return Path(data).name if data else DEMO


@dataclass(frozen=True)
class Stream:
    """The batches of one setting, and their objective."""

    name: str
    objective: str
    examples: EncodedDataset | None
    fixed: list[Example]
    batch_size: int
    seed: int

    def batch(self, step: int) -> list[Example]:
        if self.examples is None:
            return self.fixed
        return self.examples.batch(step, self.batch_size, self.seed)


def stream(
    kind: str,
    loaded: LoadedModel,
    *,
    data: str | None = None,
    batch_size: int = 16,
    length: int = 64,
    seed: int = 0,
) -> Stream:
    """`synthetic`: one batch of random rows, every position scored. `sst2`: a batch of text a step."""
    if kind == "synthetic":
        rows = full_batch(loaded.model.config.vocab_size, batch_size=batch_size, length=length)
        return Stream(f"{batch_size} x {length} synthetic", "answer-ce", None, rows, batch_size, seed)
    if kind != "sst2":
        raise MezoError(f"unknown batch {kind!r}: expected {' or '.join(BATCHES)}")
    examples = sentences(loaded, data)
    examples.batch_indices(0, batch_size, seed)  # raises MezoError if the batch is too large
    return Stream(f"{batch_size} of {source(data)}", "candidate-ce", examples, [], batch_size, seed)
