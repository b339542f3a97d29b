"""GSM8K: word problems of school arithmetic, with a worked answer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.base import HubDataset, PackagedDataset, TextExample
from mezo.tasks.conversation import Conversation
from mezo.tasks.free_text import FreeText
from mezo.tasks.row import Row, shown

_FINAL = re.compile(r"####\s*(\S[^\n]*?)\s*$")
_SUMS = re.compile(r"<<[^<>]*>>")  # for a calculator
_SAMPLES = (
    {
        "question": "A crate holds 6 boxes of 7 pears each. How many pears are in 2 crates?",
        "answer": "A crate holds 6 * 7 = <<6*7=42>>42 pears.\nTwo crates hold 42 * 2 = <<42*2=84>>84 pears.\n#### 84",
    },
    {"question": "Ann has 12 eggs and uses 5. How many are left?", "answer": "12 - 5 = <<12-5=7>>7\n#### 7"},
)


@dataclass(frozen=True, kw_only=True)
class GSM8K(FreeText):
    """`question`, `answer`, which ends in #### and the number: two turns through a chat template, or a plain prompt.

    Sums for a calculator (<<6*7=42>>) are left out. The number is what is compared: by the metric and the reward
    last-number.

    Reference: Cobbe et al. 2021, arXiv:2110.14168.
    Example:
        >>> GSM8K().causal(Row(_SAMPLES[1], "samples", 0)).references
        ('7',)
    """

    name: str = "gsm8k"
    home: HubDataset | PackagedDataset | None = HubDataset("openai/gsm8k", "main", {"validation": "test"})
    fields: tuple[str, ...] = ("question", "answer")
    metrics: tuple[str, ...] = ("last-number",)
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def conversation(self, row: Row) -> Conversation:
        text, number = _worked(row)
        asked = {"role": "user", "content": row.text("question").strip()}
        return Conversation((asked, {"role": "assistant", "content": text}), references=(number,))

    def causal(self, row: Row) -> TextExample:
        text, number = _worked(row)
        prompt = f"Question: {row.text('question').strip()}\nAnswer:"
        return TextExample(prompt, (" " + text,), 0, references=(number,))


def _worked(row: Row) -> tuple[str, str]:
    """The answer without its sums, and its number. Raises MezoError if it ends in none."""
    text = _SUMS.sub("", row.text("answer")).strip()
    found = _FINAL.search(text)
    if found is None or not re.search(r"\d", found[1]):
        raise MezoError(
            f"{row.where}: expected field 'answer' to end in #### and a number, found {shown(text[-30:])}"
        )
    return text, found[1]
