"""Stochastic gradient descent on the estimated gradient: MeZO's Algorithm 1."""

from dataclasses import dataclass
from typing import Literal

from mezo.optimizers.base import Optimizer
from mezo.types import Update
from mezo.weights import Weights


@dataclass(frozen=True)
class SGD(Optimizer):
    """theta <- (1 - lr * weight_decay) * theta - lr * mean_k g_k z_k.

    Weight decay spares vectors (biases, norms). `rounding` is of 16-bit weights.
    """

    weight_decay: float = 0.0
    rounding: Literal["stochastic", "nearest"] = "stochastic"

    def init(self, weights: Weights) -> None:
        return None

    def apply_(self, weights: Weights, state: None, update: Update) -> None:
        step_size = update.learning_rate / len(update.directions)
        weights.update_(
            [d.seed for d in update.directions],
            [-step_size * d.projected_grad for d in update.directions],
            decay=1 - update.learning_rate * self.weight_decay,
            rounding=self.rounding,
        )
