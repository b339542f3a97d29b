"""From raw rows to tokens."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from mezo.data.causal import encode_causal
from mezo.data.masked import encode_masked
from mezo.scoring import Example
from mezo.tasks import Row, Task
from mezo.util.registry import look_up

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["causal", "masked"]

_TOKENISE = {"causal": encode_causal, "masked": encode_masked}
_CHUNK = 1024  # rows whose text is held at once: the tokenizer is several times faster on many


def encode(
    task: Task, rows: Sequence[Row], tokenizer: "PreTrainedTokenizerBase", kind: Kind, max_length: int
) -> list[Example]:
    """One Example a row, each at most `max_length` tokens long with its longest candidate.

    Raises MezoError, which names the row, where a row is not what the task expects, a candidate
    leaves no room for a prompt, or the tokenizer cannot be used for this kind of model.
    """
    tokenise = look_up(_TOKENISE, kind, "model kind")
    turn = task.masked if kind == "masked" else task.causal
    examples: list[Example] = []
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        texts = [turn(row) for row in chunk]
        encoded = tokenise(texts, [row.where for row in chunk], tokenizer, max_length)
        examples += [replace(e, fields=row.fields) for e, row in zip(encoded, chunk, strict=True)]
    return examples
