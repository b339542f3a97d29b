"""What every optimizer offers: explicit state, so that a replay is a fold over the updates."""

import abc
from dataclasses import dataclass
from typing import Any

from mezo.noise import Rounding
from mezo.types import Scaling, Update
from mezo.weights import Weights


@dataclass(frozen=True)
class Optimizer(abc.ABC):
    """Weight decay is decoupled, times the learning rate, and spares vectors (biases, norms)."""

    weight_decay: float = 0.0
    rounding: Rounding = "matched"  # of 16-bit weights

    def init(self, weights: Weights) -> Any:
        """The state before the first step."""
        return None

    @abc.abstractmethod
    def apply_(self, weights: Weights, state: Any, update: Update) -> Any:
        """Change `weights` in place by `update`; return the next state. The state given may be used up."""

    def pack(self, state: Any) -> Any:
        """The state as tensors, numbers, lists and dicts, which is what `torch.save` keeps safely."""
        return state

    def unpack(self, weights: Weights, packed: Any) -> Any:
        """The state that `pack` was given; raises MezoError if it is of other tensors than `weights`."""
        return packed

    def decay(self, update: Update) -> float:
        return 1 - update.learning_rate * self.weight_decay


def sum_of_z(update: Update, factor: float = 1.0) -> tuple[list[int], list[float], list[Scaling | None]]:
    """factor times the estimated gradient, as the seeds, coefficients and scalings of a sum of z."""
    share = factor / update.n
    return (
        [d.seed for d in update.directions],
        [share * d.projected_grad for d in update.directions],
        [d.scaling for d in update.directions],
    )


def first_seed(update: Update) -> int:
    """The seed whose rounding stream a step's 16-bit weights use."""
    return update.directions[0].seed if update.directions else 0
