"""What a task is: a way to turn a raw row into a prompt and the candidates to choose from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mezo.tasks.row import Row

# Stands for the mask token in a masked template. A Unicode noncharacter: no text contains it, and
# a task need not know which tokenizer will read it.
MASK = "\ufdd0"


@dataclass(frozen=True, slots=True)
class TextExample:
    """One example as text. The prompt is head + text + tail.

    Where a masked prompt is too long, the end of `text` is cut and the rest stays whole; a causal
    prompt loses its beginning. A masked prompt holds `MASK` once, in `head` or `tail`.
    """

    text: str
    candidates: tuple[str, ...]  # with the space that separates them from what is before
    answer: int  # index of the right candidate
    head: str = ""
    tail: str = ""

    @property
    def prompt(self) -> str:
        return self.head + self.text + self.tail


@dataclass(frozen=True, slots=True)
class HubDataset:
    """Where a task's data are on the Hugging Face Hub."""

    id: str
    config: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)  # ours -> theirs, where they differ


@dataclass(frozen=True, slots=True)
class PackagedDataset:
    """Data that come with this package: mezo/data/`folder`."""

    folder: str


@dataclass(frozen=True)
class Task(ABC):
    """A task by name. Subclasses are final; a new one is one file and one line in TASKS."""

    name: str
    home: HubDataset | PackagedDataset | None  # where its data are when no source is given
    fields: tuple[str, ...]  # that every row must have
    label_words: tuple[str, ...]  # of the classes, in order; () where rows bring their own candidates
    has_candidates: bool  # there is a choice to be made: accuracy and candidate objectives mean something
    metric: Literal["accuracy", "loss"]

    @abstractmethod
    def label(self, row: Row) -> int | None:
        """The class of a row, by which k shots are drawn; None where the task has no classes."""

    @abstractmethod
    def causal(self, row: Row) -> TextExample:
        """The prompt and its continuations, for a model that predicts the next token."""

    @abstractmethod
    def masked(self, row: Row) -> TextExample:
        """The prompt with a `MASK` in it and the words for its place, for a masked language model."""
