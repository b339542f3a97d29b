"""An optimizer: SGD whose steps become shorter on their own. --optimizer 'optimizer.py:InverseTime(halved_at=500)'"""

from dataclasses import dataclass, replace
from typing import Any

from mezo.optimizers.sgd import SGD
from mezo.types import Update
from mezo.weights.weights import Weights


@dataclass(frozen=True)
class InverseTime(SGD):
    """The learning rate of step t is lr / (1 + t / halved_at)."""

    halved_at: int = 1000

    def step_(self, weights: Weights, state: Any, update: Update) -> Any:
        """Moves the weights."""
        rate = update.learning_rate / (1 + update.step / self.halved_at)
        return super().step_(weights, state, replace(update, learning_rate=rate))
