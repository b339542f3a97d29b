"""Tokens drawn by numbers that are a function of (key, sample, position): a run repeats its texts.

A token is the place of a uniform number in the cumulative probabilities, in the vocabulary's order. So a small change
of the weights, as between the two signs of a direction, changes few tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    LogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mezo.noise.uniform import uniforms
from mezo.util.writing import Seeded, Writing


class Chooser(LogitsProcessor):
    """The next token of every row of a batch, by `writing`."""

    def __init__(self, writing: Writing, rows: Sequence[Seeded], device: torch.device, start: int = 0):
        """start: tokens of the prompt, where this is used as a processor of transformers' own `generate`."""
        self.start, self.numbers = start, torch.empty(0)
        self.warpers: list[Any] = []
        if writing.draws:
            table = np.stack([uniforms(*row, writing.max_new_tokens) for row in rows])
            self.numbers = torch.from_numpy(table).to(device)
            self.warpers.append(TemperatureLogitsWarper(writing.temperature))
            if writing.top_k:
                self.warpers.append(TopKLogitsWarper(writing.top_k))
            if writing.top_p < 1:
                self.warpers.append(TopPLogitsWarper(writing.top_p))

    def keep(self, rows: torch.Tensor) -> None:
        """From now on there are only these rows."""
        if self.warpers:
            self.numbers = self.numbers[rows]

    def choose(self, scores: torch.Tensor, position: int) -> torch.Tensor:
        """(rows, vocabulary) float32 logits -> (rows,) tokens at a position of the outputs."""
        if not self.warpers:
            return scores.argmax(-1)
        for warper in self.warpers:
            scores = warper(None, scores)
        reached = scores.double().softmax(-1).cumsum(-1)
        wanted = self.numbers[:, position, None] * reached[:, -1:]
        return torch.searchsorted(reached, wanted, right=True).squeeze(1).clamp_(max=scores.shape[1] - 1)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores of which the chosen token has the highest; of greedy ones, the scores as they are."""
        if not self.warpers:
            return scores
        tokens = self.choose(scores, input_ids.shape[1] - self.start)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)
