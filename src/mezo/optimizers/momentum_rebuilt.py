"""Momentum without a buffer: the running mean, summed anew from the last seeds (MeZO, appendix B.2)."""

from dataclasses import dataclass
from typing import Any

from mezo.optimizers import history as past
from mezo.optimizers.base import Optimizer, sum_of_z
from mezo.optimizers.history import History
from mezo.types import Scaling, Update
from mezo.weights.weights import Weights


@dataclass(frozen=True)
class MomentumRebuilt(Optimizer):
    """theta <- (1 - lr * weight_decay) * theta - lr * sum_i (1 - beta1) beta1^i mean_k g_k z_k of i steps ago.

    One pass over memory, with the noise of the last `history` steps. State: a few numbers a step. What
    momentum weights with beta1^history and less is left out: 0.1% of all at 0.9 and 64. All of the sum
    is rounded into 16-bit weights at once, so `rounding="matched"` works as with SGD.

    Reference: The same rule as `Momentum`; rebuilding it is not in a paper.
    Example:
        >>> import torch
        >>> from mezo.optimizers import MomentumRebuilt
        >>> from mezo.types import Direction, Update
        >>> from mezo.weights.weights import Weights
        >>> weights, optimizer = Weights([("w", torch.zeros(2, 2))]), MomentumRebuilt()
        >>> update = Update(0, 0.1, (Direction(7, 1.0),), 1)
        >>> state = optimizer.apply_(weights, optimizer.init(weights), update)
        >>> bool(weights.tunables[0].tensor.any())
        True
    """

    beta1: float = 0.9
    history: int = 64

    def init(self, weights: Weights) -> History:
        return History()

    def step_(self, weights: Weights, state: History, update: Update) -> History:
        state = state.after(update, self.history)
        seeds: list[int] = []
        coefficients: list[float] = []
        scalings: list[Scaling | None] = []
        for age, past_update in enumerate(reversed(state.recent)):  # this step first: its seed rounds
            factor = -update.learning_rate * (1 - self.beta1) * self.beta1**age
            each = sum_of_z(past_update, factor)
            seeds += each.seeds
            coefficients += [each.factor * slope for slope in each.coefficients]
            scalings += each.scalings
        weights.update_(
            seeds, coefficients, scalings=scalings, decay=self.decay(update), rounding=self.rounding
        )
        return state

    def pack(self, state: History) -> Any:
        return past.pack(state)

    def unpack(self, weights: Weights, packed: Any) -> History:
        return past.unpack(packed)
