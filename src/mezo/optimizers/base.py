"""What every optimizer offers: explicit state, so that a replay is a fold over the updates."""

import abc
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from mezo.noise import Rounding
from mezo.types import Scaling, Update
from mezo.weights.weights import Weights


@dataclass(frozen=True)
class Optimizer(abc.ABC):
    """Weight decay is decoupled, times the learning rate, and spares vectors (biases, norms)."""

    weight_decay: float = 0.0
    rounding: Rounding = "matched"  # of 16-bit weights

    def init(self, weights: Weights) -> Any:
        """The state before the first step."""
        return None

    def apply_(self, weights: Weights, state: Any, update: Update) -> Any:
        """Change `weights` in place by `update`; return the next state. The state given may be used up."""
        state = self.step_(weights, state, update)
        if update.heading_beta is not None:
            take_in_(weights, update, update.heading_beta)
        return state

    @abc.abstractmethod
    def step_(self, weights: Weights, state: Any, update: Update) -> Any:
        """The optimizer's own part of `apply_`: theta, and its own state."""

    def pack(self, state: Any) -> Any:
        """The state as tensors, numbers, lists and dicts, which is what `torch.save` keeps safely."""
        return state

    def unpack(self, weights: Weights, packed: Any) -> Any:
        """The state that `pack` was given; raises MezoError if it is of other tensors than `weights`."""
        return packed

    def decay(self, update: Update) -> float:
        return 1 - update.learning_rate * self.weight_decay


class SumOfZ(NamedTuple):
    """factor * sum_k coefficients[k] * scalings[k] * z(seeds[k]): what `Weights.update_` adds."""

    seeds: list[int]
    coefficients: list[float]
    scalings: list[Scaling | None]
    factor: float


def sum_of_z(update: Update, factor: float = 1.0) -> SumOfZ:
    """factor times the estimated gradient."""
    return SumOfZ(
        [d.seed for d in update.directions],
        [d.projected_grad for d in update.directions],
        [d.scaling for d in update.directions],
        factor / update.n,
    )


def take_in_(weights: Weights, update: Update, beta: float) -> None:
    """m <- beta * m + (1 - beta) * the estimated gradient; in one pass, as that one has its own part along m."""
    seeds, coefficients, scalings, factor = sum_of_z(update, 1 - beta)
    for n in range(len(weights.tunables)):
        decay = beta + (1 - beta) * drift_of(update, n)
        m = weights.heading.of(n)
        weights.add_to_(m, n, 0, seeds, coefficients, scalings=scalings, factor=factor, decay=decay)
    weights.heading.changed()


def drift_of(update: Update, n: int) -> float:
    """The estimated gradient's coefficient of m in the n-th tensor."""
    parts = (
        d.projected_grad * d.drift * (d.scaling.factors[n] if d.scaling else 1.0) for d in update.directions
    )
    return sum(parts) / update.n


def drifts(update: Update) -> bool:
    """Whether the estimated gradient has a part along m, so that it is no sum of z alone."""
    return any(d.drift for d in update.directions)


def add_gradient_(
    values: torch.Tensor, weights: Weights, n: int, start: int, update: Update, factor: float = 1.0
) -> None:
    """values <- values + factor * the estimated gradient, mean_k g_k scaling_k (z_k + drift_k m).

    values: (1, k) float32, for the elements from `start` on of the n-th tensor, in row-major order.
    """
    seeds, coefficients, scalings, share = sum_of_z(update, factor)
    if along_m := factor * drift_of(update, n):
        m = weights.heading.of(n)[:, start : start + values.shape[1]]
        # not `add_` with a factor, which may fuse, and so round once where other devices round twice
        values.add_(torch.mul(m, along_m))
    weights.add_to_(values, n, start, seeds, coefficients, scalings=scalings, factor=share)


def first_seed(update: Update) -> int:
    """The seed whose rounding stream a step's 16-bit weights use."""
    return update.directions[0].seed if update.directions else 0
