"""Stochastic gradient descent on the estimated gradient: MeZO's Algorithm 1."""

from dataclasses import dataclass

from mezo.optimizers.base import Optimizer, sum_of_z
from mezo.types import Update
from mezo.weights import Weights


@dataclass(frozen=True)
class SGD(Optimizer):
    """theta <- (1 - lr * weight_decay) * theta - lr * mean_k g_k z_k."""

    def apply_(self, weights: Weights, state: None, update: Update) -> None:
        seeds, coefficients, scalings = sum_of_z(update, -update.learning_rate)
        weights.update_(
            seeds, coefficients, scalings=scalings, decay=self.decay(update), rounding=self.rounding
        )
