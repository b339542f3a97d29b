"""Questions and their answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.tasks.base import TextExample
from mezo.tasks.conversation import Conversation
from mezo.tasks.free_text import FreeText, answered
from mezo.tasks.row import Row

_SAMPLES = (
    {"question": "Which team takes a ticket about an invoice?", "answer": "billing"},
    {"question": "Which team takes a ticket about a blank page?", "answer": "web"},
)


@dataclass(frozen=True, kw_only=True)
class QuestionAnswer(FreeText):
    """`question`, `answer`: two turns through a chat template; without one, "Question: ...", "Answer: ...".

    Example:
        >>> QuestionAnswer().causal(Row(_SAMPLES[1], "samples", 0)).candidates
        (' web',)
    """

    name: str = "question-answer"
    fields: tuple[str, ...] = ("question", "answer")
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def conversation(self, row: Row) -> Conversation:
        answer = answered(row, "", row.text("answer"), "answer").candidates[0]
        turns = {"role": "user", "content": row.text("question")}, {"role": "assistant", "content": answer}
        return Conversation(turns)

    def causal(self, row: Row) -> TextExample:
        prompt = f"Question: {row.text('question').strip()}\nAnswer:"
        return answered(row, prompt, " " + row.text("answer").strip(), "answer")
