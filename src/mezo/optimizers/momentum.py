"""Momentum: SGD along a running mean of the estimated gradients (MeZO, appendix B.2)."""

from dataclasses import dataclass
from typing import Any

import torch

from mezo.optimizers import moments
from mezo.optimizers.base import Optimizer, add_gradient_, drifts, first_seed, sum_of_z
from mezo.types import Update
from mezo.weights.weights import Weights


@dataclass(frozen=True)
class Momentum(Optimizer):
    """m <- beta1 * m + (1 - beta1) * mean_k g_k z_k;  theta <- (1 - lr * weight_decay) * theta - lr * m.

    State: m, 4 bytes an element. The factor 1 - beta1, which torch's SGD does not have, lets SGD's
    learning rates carry over. m starts at 0, so the first 1 / (1 - beta1) steps are shorter.

    Reference: Polyak 1964; with the factor 1 - beta1 of Adam.
    Example:
        >>> import torch
        >>> from mezo.optimizers import Momentum
        >>> from mezo.types import Direction, Update
        >>> from mezo.weights.weights import Weights
        >>> weights, optimizer = Weights([("w", torch.zeros(2, 2))]), Momentum()
        >>> update = Update(0, 0.1, (Direction(7, 1.0),), 1)
        >>> state = optimizer.apply_(weights, optimizer.init(weights), update)
        >>> bool(weights.tunables[0].tensor.any())
        True
    """

    beta1: float = 0.9

    def init(self, weights: Weights) -> Weights:
        return weights.zeros()

    def step_(self, weights: Weights, state: Weights, update: Update) -> Weights:
        moments.scale_(state, self.beta1)
        if drifts(update):
            for n, part in state.blocks():
                values = state.tunables[n].flat()[:, part]
                add_gradient_(values, weights, n, part.start, update, 1 - self.beta1)
        else:
            seeds, slopes, scalings, factor = sum_of_z(update, 1 - self.beta1)
            state.update_(seeds, slopes, scalings=scalings, factor=factor)

        def along_m(n: int, part: slice, values: torch.Tensor) -> None:
            values.add_(torch.mul(state.tunables[n].flat()[:, part], -update.learning_rate))

        weights.move_(
            along_m, decay=self.decay(update), rounding=self.rounding, rounding_seed=first_seed(update)
        )
        return state

    def pack(self, state: Weights) -> Any:
        return moments.pack(state)

    def unpack(self, weights: Weights, packed: Any) -> Weights:
        return moments.unpack(weights, packed)
