"""What tasks with one label a row share."""

from dataclasses import dataclass

from mezo.tasks.base import MASK, Task, TextExample, placed
from mezo.tasks.row import Row

YES_NO = (" Yes", " No")
NO_YES = (" No", " Yes")
# Of a question that is answered no or yes: ints on the hub, true and false in the SuperGLUE files.
FALSE_TRUE = (("no", "false"), ("yes", "true"))


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Rows with a `label`: one of `classes`, each of which has its label word."""

    def label(self, row: Row) -> int:
        return row.label("label", self.classes)

    def asked(self, row: Row, text: str, tail: str, head: str = "") -> TextExample:
        """Which of the label words fits after head + text + tail, or at the `MASK` in it?"""
        prompt = TextExample(text, (), self.label(row), head, tail)
        # Label words of a masked prompt are tokens in the middle of a text: always with their space.
        words = self.label_words if MASK in head + tail else placed(self.label_words, prompt.prompt)
        return TextExample(text, words, prompt.answer, head, tail)
