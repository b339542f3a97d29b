"""A task: which letter does a sentence begin with? --task task.py:Letters"""

from dataclasses import dataclass

from mezo.tasks import Row, TextExample
from mezo.tasks.classification import Classification


@dataclass(frozen=True, kw_only=True)
class Letters(Classification):
    """`sentence`, `label`: 0 for h, 1 for g."""

    name: str = "letters"
    fields: tuple[str, ...] = ("sentence", "label")
    classes: tuple[tuple[str, ...], ...] = (("h",), ("g",))
    label_words: tuple[str, ...] = (" h", " g")

    def causal(self, row: Row) -> TextExample:
        """The prompt of a causal model, and the words that may follow it."""
        return self.asked(row, row.text("sentence"), head="Word: ", tail="\nLetter:")
