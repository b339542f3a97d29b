"""What a frozen model makes of its prompts: the hidden state in which its answer would be read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mezo.baselines.gradients import padded
from mezo.scoring import Example

_TOKENS = 8192  # of a pass, padding included


def prompt_features(model: Any, examples: Sequence[Example], pad: int) -> np.ndarray:
    """(N, H) float32: the final hidden state of each prompt's last token, or of its mask."""
    rows = [e.prompt for e in examples]
    return _hidden(model, rows, [_place(e, len(row)) for e, row in zip(examples, rows, strict=True)], pad)


def candidate_features(model: Any, examples: Sequence[Example], pad: int) -> np.ndarray:
    """(C, H) float32: of every candidate of every example, in order, read at its last token.

    A masked model's candidate stands in the place of the mask.
    """
    rows = [_filled(e, c) for e in examples for c in e.candidates]
    asked = [e for e in examples for _ in e.candidates]
    return _hidden(model, rows, [_place(e, len(row)) for e, row in zip(asked, rows, strict=True)], pad)


def _place(example: Example, length: int) -> int:
    return length - 1 if example.mask_position is None else example.mask_position


def _filled(example: Example, candidate: tuple[int, ...]) -> tuple[int, ...]:
    if example.mask_position is None:
        return example.prompt + candidate
    before, after = example.prompt[: example.mask_position], example.prompt[example.mask_position + 1 :]
    return before + candidate + after


@torch.no_grad()
def _hidden(model: Any, rows: Sequence[tuple[int, ...]], places: Sequence[int], pad: int) -> np.ndarray:
    """(len(rows), H) hidden states after the last layer and its norm, before the head; rows of like
    lengths go through the model together."""
    body, device = model.base_model, next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[int, np.ndarray] = {}
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and len(rows[order[stop]]) * (stop + 1 - start) <= _TOKENS:
            stop += 1
        members = order[start:stop]
        ids, mask = (x.to(device) for x in padded([rows[i] for i in members], pad))
        states = body(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, T, H)
        read = states[torch.arange(len(members)), torch.tensor([places[i] for i in members])]
        found |= zip(members, read.float().cpu().numpy(), strict=True)
        start = stop
    return np.stack([found[i] for i in range(len(rows))])
