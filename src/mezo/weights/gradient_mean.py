"""m: the running mean of the estimated gradient, along which directions may drift.

    z' = z + drift * m,    m <- beta * m + (1 - beta) * mean_k g_k z'_k

Kept in float32 from the first step that uses it (`Update.heading_beta`): 4 bytes a weight. It changes at the end of a
step only, by kernels with the same bits in the run and in its replay (`mezo.optimizers.base`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from mezo.errors import MezoError

if TYPE_CHECKING:
    from mezo.weights.tunable import Tunable


class Heading:
    """m of a list of tuned tensors; zero, and no memory, until it is first asked for."""

    def __init__(self, tunables: "Sequence[Tunable]"):
        self._tunables = tunables
        self._m: list[torch.Tensor] | None = None
        self._norm: float | None = None

    def of(self, n: int) -> torch.Tensor:
        """m of the n-th tensor, (1, elements) float32."""
        if self._m is None:
            self._m = [torch.zeros(1, t.tensor.numel(), device=t.tensor.device) for t in self._tunables]
        return self._m[n]

    def changed(self) -> None:
        """To be called by whoever has written m."""
        self._norm = None

    def norm(self) -> float:
        """||m||_2 over all tensors. Devices may differ in the last digits: what is made of it is recorded."""
        if self._norm is None:
            norms = [float(torch.linalg.vector_norm(m, dtype=torch.float64)) for m in self._m or ()]
            self._norm = math.hypot(*norms)
        return self._norm

    def pack(self) -> dict[str, torch.Tensor] | None:
        """m by the tensors' names; None while it is zero."""
        return None if self._m is None else {t.name: m for t, m in zip(self._tunables, self._m, strict=True)}

    def unpack(self, packed: Mapping[str, torch.Tensor] | None) -> None:
        """Raises MezoError if what was packed is not of tensors like these."""
        self._m, self._norm = None, None
        for n, t in enumerate(self._tunables if packed is not None else ()):
            found = None if packed is None else packed.get(t.name)
            if found is None or found.numel() != t.tensor.numel():
                what = "nothing" if found is None else f"{found.numel()} elements"
                raise MezoError(
                    f"the state's running mean of the gradient has {what} for {t.name}, expected "
                    f"{t.tensor.numel()} elements; it belongs to other weights"
                )
            self.of(n).copy_(found.view(1, -1))
