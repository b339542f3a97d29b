"""What tasks share whose rows bring one text to be written: no candidates, an end token after the answer."""

from dataclasses import dataclass

from mezo.errors import MezoError
from mezo.tasks.base import MASK, Task, TextExample
from mezo.tasks.row import Row


@dataclass(frozen=True, kw_only=True)
class FreeText(Task):
    """Rows that are judged by their loss alone."""

    has_candidates: bool = False
    metrics: tuple[str, ...] = ()
    append_eos: bool = True

    def label(self, row: Row) -> None:
        return None


def answered(row: Row, prompt: str, answer: str, name: str, *, masked: bool = False) -> TextExample:
    """`prompt` continued by `answer`, or with masks for the answer at its end. Raises MezoError for an empty answer."""
    if not answer:
        raise MezoError(f"{row.where}: expected some text in field {name!r}, found none")
    tail = ("" if prompt[-1:].isspace() or not prompt else " ") + MASK if masked else ""
    return TextExample(prompt, (answer,), 0, tail=tail, references=(answer.strip(),))
