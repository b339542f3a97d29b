"""A task written down in a YAML file: fields, templates, and where the answer is.

    name: tickets                        # default: the file's name
    prompt: "Ticket: {text}\\nTeam:"      # for causal models
    masked: "{mask} ticket: {text}"      # for masked models
    label: team                          # the field of the class (default: label)
    labels: [web, billing]               # how it is written in the data, class by class
    label_words: [web, billing]          # the answers; default: the labels

In the place of label, labels and label_words: `answer: FIELD` for an answer of each row's own (a text,
or a list of accepted ones), and with it `candidates: FIELD` where the row lists what to choose from
(the answer is then one of them, or its index from 0).
"""

from dataclasses import dataclass

from mezo.errors import MezoError
from mezo.tasks.base import Task, TextExample, placed
from mezo.tasks.row import Row, shown
from mezo.tasks.template import filled


@dataclass(frozen=True, kw_only=True)
class Written(Task):
    """What `read_task` makes of a file."""

    prompt: str | None  # template of the causal form
    masked_prompt: str | None  # template of the masked form
    cut: str | None  # the field that gives way where a prompt is too long; None: the first in the template
    label_field: str
    labels: tuple[str | bool | int, ...]  # of the classes, as they are in the data
    answer_field: str | None
    candidates_field: str | None
    file: str  # for messages

    def label(self, row: Row) -> int | None:
        if self.answer_field is not None:
            return None
        if all(isinstance(label, str) for label in self.labels):
            return row.label(self.label_field, self.classes)
        value = row.value(self.label_field)  # such as 1 to 5, or false and true: exactly as in the file
        for number, label in enumerate(self.labels):
            if type(label) is type(value) and label == value:
                return number
        choices = ", ".join(map(repr, self.labels))
        raise MezoError(
            f"{row.where}: expected field {self.label_field!r} to be one of {choices}; found {shown(value)}"
        )

    def causal(self, row: Row) -> TextExample:
        if self.prompt is None:
            raise MezoError(
                f"{self.file}: expected 'prompt', which a causal model needs; found only 'masked'"
            )
        return self._posed(row, self.prompt)

    def masked(self, row: Row) -> TextExample:
        if self.masked_prompt is None or not self.has_candidates:
            raise MezoError(
                f"{self.file}: expected 'masked', a template with {{mask}} in it, and candidates for its place, "
                "which a masked language model needs; add them, or choose a causal model"
            )
        return self._posed(row, self.masked_prompt)

    def _posed(self, row: Row, template: str) -> TextExample:
        head, text, tail = filled(template, row, self.cut)
        candidates, right, references = self._answers(row)
        words = placed(candidates, "" if template is self.masked_prompt else head + text + tail)
        if not self.has_candidates:
            words = tuple(f"{word}\n" for word in words)  # where generation stops
        answers = right if right[1:] else ()
        return TextExample(text, words, right[0], head, tail, references=references, answers=answers)

    def _answers(self, row: Row) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
        """Candidates, which of them are right, and the right ones as text."""
        if self.answer_field is None:
            number = self.label(row)
            assert number is not None
            return self.label_words, (number,), ()
        if self.candidates_field is None:
            texts = _some(row, self.answer_field, row.texts(self.answer_field))
            return texts[:1], (0,), texts
        candidates = _some(row, self.candidates_field, row.texts(self.candidates_field))
        found = row.value(self.answer_field)
        if isinstance(found, int) and not isinstance(found, bool) and found in range(len(candidates)):
            return candidates, (found,), (candidates[found],)
        texts = row.texts(self.answer_field) if isinstance(found, str | list | tuple) else ()
        right = tuple(i for i, candidate in enumerate(candidates) if candidate in texts)
        if not right:
            raise MezoError(
                f"{row.where}: expected field {self.answer_field!r} to be one of the {len(candidates)} candidates "
                f"in {self.candidates_field!r}, or its index; found {shown(found)}"
            )
        return candidates, right, tuple(candidates[i] for i in right)


def _some(row: Row, name: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    if not texts or not all(text.strip() for text in texts):
        raise MezoError(f"{row.where}: expected some text in field {name!r}, found none")
    return texts
