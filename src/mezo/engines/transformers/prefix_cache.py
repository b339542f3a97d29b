"""Keys and values of shared tokens, handed on within one forward pass.

transformers asks its cache, layer by layer, for the keys and values that this pass attends to. This cache answers
with those of other rows of the same pass, so shared tokens are computed once, at the probe's own weights, and
nothing outlives the pass.
"""

from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from mezo.engines.transformers.batch import stacked


class SharedKeys(DynamicCache):
    """keys: (B, S + T) int64, for every row of the rectangle the tokens whose keys it reads, counted
    flat in one probe's B x T tokens. Rows of P probes stand one after another."""

    def __init__(self, keys: torch.Tensor, num_tokens: int):
        super().__init__()
        self._keys, self._num_tokens = keys, num_tokens
        self._read: dict[int, torch.Tensor] = {}  # by the number of probes: what is read, counted flat

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(P * B, heads, T, dim) -> (P * B, heads, S + T, dim)."""
        return self._gather(key_states), self._gather(value_states)

    def _gather(self, states: torch.Tensor) -> torch.Tensor:
        rows, heads, width, dim = states.shape
        copies = rows // len(self._keys)
        if copies not in self._read:
            offset = self._num_tokens * torch.arange(copies, device=self._keys.device)
            every = stacked(self._keys, copies) + offset.repeat_interleave(len(self._keys)).unsqueeze(1)
            self._read[copies] = every.flatten()
        flat = states.transpose(1, 2).reshape(rows * width, heads, dim)
        read = flat.index_select(0, self._read[copies])
        return read.view(rows, -1, heads, dim).transpose(1, 2)
