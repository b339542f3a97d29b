"""Low-rank noise whose left factor stays for many steps, so that all of them move theta in one thin space.

z = left^T right / sqrt(r) as in `mezo.weights.low_rank_noise`; `left` is a function of the upper half of the seed alone,
`right` of all of it. So z is still a function of its seed, and directions are in one space if the upper halves of their
seeds are the same (`mezo.estimators.kept_basis` sees to that).
"""

from dataclasses import dataclass

import torch

from mezo.noise.seeds import basis_of
from mezo.weights.low_rank_noise import LowRank, add_summed


@dataclass(frozen=True, slots=True)
class KeptBasis(LowRank):
    """The noise of one matrix: `left` of a basis, `right` of a seed."""

    def basis(
        self, basis: int, device: torch.device, start: int = 0, stop: int | None = None
    ) -> torch.Tensor:
        """(r, rows start:stop) float32, standard normal."""
        return self._drawn_left(basis, device, start, stop)

    def add_along_(self, values: torch.Tensor, start: int, basis: int, right: torch.Tensor) -> None:
        """values <- values + basis^T right, summed as `add_` sums z.

        values: (1, n) float32, elements `start` on of the matrix in row-major order. right: (r, columns) float32.
        """
        first, last = start // self.columns, -(-(start + values.shape[1]) // self.columns)  # rows touched
        left = self.basis(basis, values.device, first, last)
        if values.device.type == "cpu":
            from mezo.noise.cpu_lowrank import add_
        else:
            add_ = add_summed
        add_(values[0], start, left.unsqueeze(0), right.unsqueeze(0), [1.0], first)

    def _drawn_left(
        self, seed: int, device: torch.device | str, start: int = 0, stop: int | None = None
    ) -> torch.Tensor:
        return LowRank._drawn_left(self, basis_of(seed), device, start, stop)
