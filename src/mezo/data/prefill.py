"""Beginnings of what a model writes: of each row's own, or one for all rows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mezo.data.tokens import BROKEN, continuation
from mezo.errors import MezoError
from mezo.scoring import Example
from mezo.tasks import Row, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def opened(
    examples: Sequence[Example], rows: Sequence[Row], task: Task, tokenizer: "PreTrainedTokenizerBase"
) -> list[Example]:
    """The examples with the tokens of their beginnings. Raises MezoError, which names the row, for one that has two."""
    found = []
    for example, row in zip(examples, rows, strict=True):
        if task.prefill and example.prefill:
            raise MezoError(
                f"{row.where}: this row has a beginning of its own (continue_final_message), and --prefill gives another: leave "
                "one of them out"
            )
        text = example.prefill or task.prefill
        begun = tuple(continuation(tokenizer, text)) if text else ()
        found.append(replace(example, prefill=text.replace(BROKEN, ""), begun=begun) if text else example)
    return found
