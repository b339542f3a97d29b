"""Stochastic gradient descent on the estimated gradient: MeZO's Algorithm 1."""

from dataclasses import dataclass

import torch

from mezo.optimizers.base import Optimizer, add_gradient_, drifts, first_seed, sum_of_z
from mezo.types import Update
from mezo.weights.weights import Weights


@dataclass(frozen=True)
class SGD(Optimizer):
    """theta <- (1 - lr * weight_decay) * theta - lr * mean_k g_k z_k.

    Along directions that drift (`mezo.weights.gradient_mean`), "matched" rounding is stochastic: what moves theta is
    no sum of z.

    Reference: Malladi et al. 2023, arXiv:2305.17333, Algorithm 1.
    Example:
        >>> import torch
        >>> from mezo.optimizers import SGD
        >>> from mezo.types import Direction, Update
        >>> from mezo.weights.weights import Weights
        >>> weights, optimizer = Weights([("w", torch.zeros(2, 2))]), SGD()
        >>> update = Update(0, 0.1, (Direction(7, 1.0),), 1)
        >>> state = optimizer.apply_(weights, optimizer.init(weights), update)
        >>> bool(weights.tunables[0].tensor.any())
        True
    """

    def step_(self, weights: Weights, state: None, update: Update) -> None:
        if drifts(update):

            def along(n: int, part: slice, values: torch.Tensor) -> None:
                add_gradient_(values, weights, n, part.start, update, -update.learning_rate)

            weights.move_(
                along, decay=self.decay(update), rounding=self.rounding, rounding_seed=first_seed(update)
            )
            return
        seeds, slopes, scalings, factor = sum_of_z(update, -update.learning_rate)
        decay = self.decay(update)
        weights.update_(seeds, slopes, scalings=scalings, factor=factor, decay=decay, rounding=self.rounding)
