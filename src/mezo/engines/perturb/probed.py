"""What the forward of one layer asks of the pass that it is part of."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import nn

from mezo.engines.perturb.low_rank_factors import Factors
from mezo.engines.perturb.pairs import Pair
from mezo.types import Probe
from mezo.weights.tunable import Tunable


class Probed(Protocol):
    """A forward pass at several probes; `engines.perturb.forward.Probing` is one."""

    probes: Sequence[Probe]
    pairs: list[Pair]
    rows: int | None  # leading dimension of the inputs, of all probes together; None: not known
    factors: Factors  # of low-rank directions

    def tunable(self, module: nn.Module, key: str) -> Tunable | None:
        """The tuned tensor that `module` holds under `key`, if a handler perturbs it."""
        ...

    def scale_of(self, pair: Pair, tunable: Tunable) -> float:
        """The scale of z in a tensor at the pair's probes."""
        ...

    def perturbed(
        self, tunable: Tunable, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """(probe index, rows start:stop of the tensor at that probe); valid until the next one."""
        ...

    def perturbed_rows(self, tunable: Tunable, rows: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """(probe index, the given rows of the tensor at that probe); valid until the next one."""
        ...

    def perturbed_copies(self, tunable: Tunable) -> list[torch.Tensor]:
        """The whole tensor at each probe, in probe order."""
        ...

    def blocks(self, weight: torch.Tensor, limit: int | None = None) -> Iterator[tuple[int, int]]:
        """(start, stop) of row blocks of a matrix of at most `limit` elements."""
        ...

    def only(self, i: int) -> AbstractContextManager[None]:
        """Inside the block there is one probe, the i-th."""
        ...
