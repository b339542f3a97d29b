"""What a model has rows for: token ids and positions. Examples are held against it before anything runs.

A GPU reads past the end of a table, or stops the process; a CPU raises IndexError in the middle of a step.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mezo.errors import MezoError
from mezo.scoring import Example

_POSITIONS = re.compile(r"(^|_)(pos|position|positions)(_|$)|^wpe$")
_BY_CONFIG = ("mpt", "reformer")  # their slopes and factors are of as many positions as the config says


@dataclass(frozen=True, slots=True)
class Limits:
    """Rows of a model's tables."""

    inputs: int  # of the input embedding
    outputs: int  # of the head
    positions: int | None  # learned or tabulated; None: computed for any

    @classmethod
    def of(cls, model: Any) -> "Limits":
        return cls(
            _rows(model.get_input_embeddings()), _rows(model.get_output_embeddings()), positions_of(model)
        )

    def check(
        self,
        examples: Iterable[Example],
        places: Iterable[str],
        tokenizer: Any,
        *,
        prefix_tokens: int = 0,
        new_tokens: int = 0,
    ) -> None:
        """Raises MezoError, which names the row, for a token or a position that has no row in a table.

        prefix_tokens: positions taken by a prefix. new_tokens: how many are written after each prompt.
        """
        for example, where in zip(examples, places, strict=True):
            fed = max((*example.asked, *(t for c in example.candidates for t in c[:-1])), default=0)
            _check_token(fed, self.inputs, "input embedding", where, tokenizer)
            asked = max((t for c in example.candidates for t in c), default=0)
            _check_token(asked, self.outputs, "language-model head", where, tokenizer)
            self._check_length(example, where, prefix_tokens, new_tokens)

    def _check_length(self, example: Example, where: str, prefix_tokens: int, new_tokens: int) -> None:
        if self.positions is None:
            return
        continued = example.mask_position is None  # the last token of a candidate is not fed
        length = len(example.prompt) + (max(map(len, example.candidates), default=1) - 1 if continued else 0)
        room = self.positions - prefix_tokens
        beside = f" beside the prefix's {prefix_tokens}" if prefix_tokens else ""
        if length > room:
            raise MezoError(
                f"{where}: {length} tokens, and the model has {room} positions{beside}: set max_length "
                f"(--max-length) to {room} or less"
            )
        if new_tokens and len(example.asked) + new_tokens - 1 > room:
            raise MezoError(
                f"{where}: a prompt of {len(example.asked)} tokens and max_new_tokens={new_tokens}, and the model has "
                f"{room} positions{beside}: set max_length (--max-length) to {max(1, room - new_tokens + 1)} or less"
            )


def positions_of(model: Any) -> int | None:
    """How many tokens the model has positions for, learned or in a table; None where they are computed for any."""
    config = model.config.get_text_config()
    named = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)
    most = named if isinstance(named, int) else sys.maxsize
    if config.model_type in _BY_CONFIG:
        return most
    for name, module in model.named_modules():
        rows = getattr(getattr(module, "weight", None), "shape", ())
        if len(rows) == 2 and not isinstance(module, nn.Linear) and _is_table(name):
            padding = getattr(module, "padding_idx", None)
            unused = 0 if padding is None else padding + 1  # RoBERTa's
            return min(most, rows[0] - unused - getattr(module, "offset", 0))  # OPT's
    sizes = [len(b) for name, b in model.named_buffers() if b.dim() == 2 and len(b) > 1 and _is_table(name)]
    return min(sizes) if most in sizes else None


def _is_table(name: str) -> bool:
    return _POSITIONS.search(name.rsplit(".", 1)[-1]) is not None


def with_a_row(tokens: Sequence[Any], model: Any) -> int:
    """The first of the tokens that the input embedding has a row for; 0 without one."""
    rows = _rows(model.get_input_embeddings())
    return next((t for t in tokens if isinstance(t, int) and 0 <= t < rows), 0)


def _rows(module: Any) -> int:
    weight = getattr(module, "weight", None)
    return weight.shape[0] if isinstance(weight, torch.Tensor) else sys.maxsize


def _check_token(token: int, rows: int, table: str, where: str, tokenizer: Any) -> None:
    if token >= rows:
        raise MezoError(
            f"{where}: token {token} ({tokenizer.convert_ids_to_tokens(token)!r}) has no row in the {table}, which "
            f"has {rows}: resize the model (--model) to its tokenizer with resize_token_embeddings, or save it with "
            "the tokenizer that it was trained with"
        )
