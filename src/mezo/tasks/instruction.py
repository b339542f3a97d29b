"""Instructions and their outputs (Taori et al. 2023, Stanford Alpaca)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.tasks.base import TextExample
from mezo.tasks.conversation import Conversation
from mezo.tasks.free_text import FreeText, answered
from mezo.tasks.row import Row

_SAMPLES = (
    {"instruction": "Name the team for this ticket.", "input": "the login page is blank", "output": "web"},
    {"instruction": "Write a greeting.", "input": "", "output": "Good morning!"},
)
_INTRO = "Below is an instruction that describes a task{paired}. Write a response that appropriately completes the request.\n\n"
_PAIRED = ", paired with an input that provides further context"


@dataclass(frozen=True, kw_only=True)
class Instruction(FreeText):
    """`instruction`, `output`, and an `input` that may be empty or absent.

    A model with a chat template reads the instruction as the user's turn, another model Alpaca's own prompt.

    Reference: Taori et al. 2023, Stanford Alpaca.
    Example:
        >>> Instruction().causal(Row(_SAMPLES[1], "samples", 0)).prompt[-50:]
        '### Instruction:\\nWrite a greeting.\\n\\n### Response:\\n'
    """

    name: str = "instruction"
    fields: tuple[str, ...] = ("instruction", "output")
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def conversation(self, row: Row) -> Conversation:
        instruction, given = _asked(row)
        asked = f"{instruction}\n\n{given}" if given else instruction
        answer = answered(row, asked, row.text("output"), "output").candidates[0]
        system = row.fields.get("system")
        first = ({"role": "system", "content": system},) if isinstance(system, str) and system else ()
        turns = {"role": "user", "content": asked}, {"role": "assistant", "content": answer}
        return Conversation((*first, *turns))

    def causal(self, row: Row) -> TextExample:
        instruction, given = _asked(row)
        prompt = _INTRO.format(paired=_PAIRED if given else "") + f"### Instruction:\n{instruction}\n\n"
        prompt += (f"### Input:\n{given}\n\n" if given else "") + "### Response:\n"
        return answered(row, prompt, row.text("output"), "output")


def _asked(row: Row) -> tuple[str, str]:
    given = row.text("input") if row.fields.get("input") is not None else ""
    return row.text("instruction"), given.strip()
