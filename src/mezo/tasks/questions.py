"""What tasks share whose answers are written, not chosen: SQuAD and DROP."""

from mezo.errors import MezoError
from mezo.tasks.base import TextExample
from mezo.tasks.row import Row


def answered(row: Row, text: str, answers: tuple[str, ...], *, head: str) -> TextExample:
    """A passage, a question and "Answer:"; the first answer is what is learned, all are accepted.

    The completion ends in a new line, as in the published code: that is where generation stops.
    """
    accepted = tuple(dict.fromkeys(answer.strip() for answer in answers if answer.strip()))
    if not accepted:
        raise MezoError(
            f"{row.where}: expected at least one answer, found none; choose a split that has answers"
        )
    tail = f"\nQuestion: {row.text('question').strip()}\nAnswer:"
    return TextExample(text, (f" {accepted[0]}\n",), 0, head, tail, references=accepted)
