"""The factors of the low-rank directions of a pass."""

from typing import TYPE_CHECKING

import torch

from mezo.util.profiling import span
from mezo.weights.tunable import Tunable

if TYPE_CHECKING:
    pass


class Factors:
    """The factors of the directions of a pass, drawn when a layer first asks: (rows + columns) r numbers each."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[str, int, torch.dtype], tuple[torch.Tensor, torch.Tensor]] = {}

    def of(self, t: Tunable, seed: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """(r, rows) and (r, columns); z = left^T right."""
        key = t.name, seed, dtype
        if key not in self._drawn:
            assert t.low_rank is not None
            device = t.tensor.device
            with span("noise"):
                left, right = t.low_rank.left(seed, device), t.low_rank.right(seed, device)
                self._drawn[key] = left.to(dtype), right.to(dtype)
        return self._drawn[key]

    def forget(self) -> None:
        self._drawn.clear()
