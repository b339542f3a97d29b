"""From raw rows to tokens."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from mezo.data.causal import encode_causal
from mezo.data.chat import encode_chat
from mezo.data.masked import encode_masked
from mezo.data.pairs import encode_pair
from mezo.data.prefill import opened
from mezo.data.tokens import BROKEN, as_text, controls
from mezo.events import MezoWarning
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
    look_up(_TOKENISE, kind, "model kind")
    end, pattern = end_tokens(task, tokenizer), None if task.parse_special else controls(tokenizer)
    examples: list[Example] = []
    written: list[str] = []  # control tokens that the data write out, a sample a row
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        plain = [_as_text(row, pattern, written) for row in chunk]
        encoded = _encoded(task, plain, tokenizer, kind, max_length, end)
        encoded = opened(encoded, plain, task, tokenizer)
        examples += [
            replace(e, fields=row.fields, references=tuple(r.replace(BROKEN, "") for r in e.references))
            for e, row in zip(encoded, chunk, strict=True)
        ]
    if written and len(rows) > 1:
        warnings.warn(
            f"{rows[0].source}: {len(written)} of {len(rows)} rows write out control tokens such as {written[0]!r}, which are "
            "read as text; if they are meant as control tokens, add --parse-special",
            MezoWarning,
            stacklevel=2,
        )
    return examples


def end_tokens(task: Task, tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """What answers of the task end with: the end token, or nothing where the task or the tokenizer has none."""
    eos = tokenizer.eos_token_id
    return (eos,) if task.append_eos and isinstance(eos, int) else ()


def _encoded(
    task: Task,
    rows: Sequence[Row],
    tokenizer: "PreTrainedTokenizerBase",
    kind: Kind,
    max_length: int,
    end: tuple[int, ...],
) -> list[Example]:
    if kind == "causal" and tokenizer.chat_template:
        talks = [task.conversation(row) for row in rows]
        if all(talk is not None for talk in talks):
            return [
                replace(
                    encode_chat(talk, row.where, tokenizer, max_length, turns=task.turns, end=end),
                    prefill=talk.begun,
                )
                if talk.rejected is None
                else encode_pair(talk, row.where, tokenizer, max_length, end=end)
                for talk, row in zip(talks, rows, strict=True)
                if talk is not None
            ]
    texts = [(task.masked if kind == "masked" else task.causal)(row) for row in rows]
    return _TOKENISE[kind](texts, [row.where for row in rows], tokenizer, max_length, end)


def _as_text(row: Row, pattern: re.Pattern[str] | None, written: list[str]) -> Row:
    """The row with its control tokens broken; one of them goes to `written`."""
    if pattern is None:
        return row
    fields = as_text(row.fields, pattern)
    if fields == row.fields:
        return row
    found = next(name for name in _texts(fields) if BROKEN in name)
    around = found.index(BROKEN)
    shown = pattern.search(found.replace(BROKEN, ""))
    written.append(shown[0] if shown else found[around - 1 : around + 1])
    return Row(fields, row.source, row.number, row.is_line)


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for each in inside for text in _texts(each)]
