"""What a task is: a way to turn a raw row into a prompt and the candidates to choose from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.conversation import Conversation
from mezo.tasks.row import Row

# Stands for the mask token in a masked template. A Unicode noncharacter: no text contains it, and
# a task need not know which tokenizer will read it.
MASK = "\ufdd0"


@dataclass(frozen=True, slots=True)
class TextExample:
    """One example as text. The prompt is head + text + tail.

    `text` is what gives way where a prompt is too long: its end in a masked prompt, its beginning in a
    causal one; `head` and `tail` stay whole. A masked prompt holds `MASK` once, in `head` or `tail`.
    """

    text: str
    # With the space that separates them from what is before; none of a prompt without an answer.
    candidates: tuple[str, ...]
    answer: int  # index of the right candidate
    head: str = ""
    tail: str = ""
    references: tuple[str, ...] = ()  # accepted answers as text, where the answer is to be generated
    answers: tuple[int, ...] = ()  # all right candidates where several are; () means `answer` alone
    group: str | int | None = None  # examples judged together, such as the answers to one question
    cuts_answer: bool = False  # a candidate that is too long loses its end

    @property
    def prompt(self) -> str:
        return self.head + self.text + self.tail


@dataclass(frozen=True, slots=True)
class HubDataset:
    """Where a task's data are on the Hugging Face Hub."""

    id: str
    config: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)  # ours -> theirs, where they differ
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class PackagedDataset:
    """Data that come with this package: mezo/data/`folder`."""

    folder: str


@dataclass(frozen=True, slots=True)
class GeneratedDataset:
    """Data that the task makes itself: `Task.generated`."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A task by name. Subclasses are final; a new one is one file and one line in TASKS."""

    name: str
    home: HubDataset | PackagedDataset | GeneratedDataset | None = (
        None  # where its data are when no source is given
    )
    fields: tuple[str, ...]  # that every row must have, but for
    optional: tuple[str, ...] = ()  # those that a reward can do without
    aliases: tuple[tuple[str, str], ...] = ()  # (other official name, field): read where the field is absent
    classes: tuple[tuple[str, ...], ...] = ()  # how labels are written, class by class; see Row.label
    label_words: tuple[str, ...] = ()  # of the classes, in order; () where rows bring their own candidates
    has_candidates: bool = (
        True  # there is a choice to be made: accuracy and candidate objectives mean something
    )
    metrics: tuple[str, ...] = ("accuracy",)  # it is judged by, the headline one first
    objective: str | None = (
        None  # what "auto" is; None: of candidates where there are some, else of the answer
    )
    fits: bool = False  # its classes are those of the training rows: see `fitted`
    # How a run reads its rows; set by `task_for`.
    columns: tuple[tuple[str, str], ...] = ()  # (column of the data, field): read whatever else the row has
    splits: tuple[tuple[str, str], ...] = ()  # (split, what the data call it), where they differ
    append_eos: bool = False  # an answer ends with the model's end token
    parse_special: bool = False  # control tokens that are written out in the data count as such
    turns: str = "all"  # of a conversation: "all" the assistant's turns are learned, or the "last"
    data_format: str | None = None  # of the files, whatever their names end in
    prefill: str = ""  # what the model writes begins with this
    writes: bool = False  # rows are for a reward, so that one without an answer is a prompt
    # Made-up rows, for a look at the prompts without data.
    samples: tuple[Mapping[str, Any], ...] = field(default=(), compare=False, repr=False)

    @abstractmethod
    def label(self, row: Row) -> int | None:
        """The class of a row, by which k shots are drawn; None where the task has no classes."""

    @abstractmethod
    def causal(self, row: Row) -> TextExample:
        """The prompt and its continuations, for a model that predicts the next token."""

    def masked(self, row: Row) -> TextExample:
        """The prompt with a `MASK` in it and the words for its place, for a masked language model.

        Raises MezoError unless the task has such a form.
        """
        raise MezoError(
            f"{row.where}: task {self.name!r} continues its prompts, which a masked language model cannot; "
            "choose a causal model, or another task"
        )

    def conversation(self, row: Row) -> Conversation | None:
        """The row as a conversation, for models with a chat template; None where it is always a plain prompt."""
        return None

    def fitted(self, rows: Sequence[Row]) -> "Task":
        """The task as the training rows define it: its classes, where they are those that the data have."""
        return self

    def unfold(self, fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """The examples in one raw object: most often itself; several where a passage holds questions."""
        return (fields,)

    def generated(self, split: str) -> Sequence[Mapping[str, Any]]:
        """The rows of "train", "validation" or "test", where its `home` is a GeneratedDataset."""
        raise NotImplementedError

    def skips(self, row: Row) -> str | None:
        """Why a row is left out, such as "no gold label", where the official data hold such rows."""
        return None


def placed(words: Sequence[str], prompt: str) -> tuple[str, ...]:
    """The words as they follow `prompt`: after a space, or after the white space it ends in."""
    space = "" if prompt[-1:].isspace() else " "
    return tuple(space + word.strip() for word in words)
