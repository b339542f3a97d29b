"""Adam (Kingma & Ba 2015), with decoupled weight decay (Loshchilov & Hutter 2019), on the estimated gradient."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mezo.optimizers import moments
from mezo.optimizers.base import Optimizer, add_gradient_, first_seed
from mezo.types import Update
from mezo.weights.weights import Weights


@dataclass(frozen=True)
class AdamRule(Optimizer):
    """The arithmetic of Adam on a block: float32, each operation rounded by itself, in a fixed order.

    m <- beta1 * m + (1 - beta1) * G;   v <- beta2 * v + (1 - beta2) * G^2,   G = mean_k g_k z_k
    theta <- (1 - lr * weight_decay) * theta - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + adam_epsilon)

    beta2 is 0.95 rather than 0.999. With one direction, every element of G has the same variance, that
    of the slope: v has no slow, element by element scale to find, and only follows the slopes.
    """

    beta1: float = 0.9
    beta2: float = 0.95
    adam_epsilon: float = 1e-8

    def take_in_(self, m: torch.Tensor, v: torch.Tensor, g: torch.Tensor, spare: torch.Tensor) -> None:
        """m and v after one more gradient. g is used up."""
        # `add_` with a factor and `addcmul_` may fuse, and so round once where other devices round twice
        torch.mul(g, 1 - self.beta1, out=spare)
        m.mul_(self.beta1).add_(spare)
        g.mul_(g).mul_(1 - self.beta2)
        v.mul_(self.beta2).add_(g)

    def move_(
        self,
        values: torch.Tensor,
        m: torch.Tensor,
        v: torch.Tensor,
        steps: int,
        learning_rate: float,
        spare: torch.Tensor,
    ) -> None:
        """values <- values - lr * m^ / (sqrt(v^) + adam_epsilon); m and v hold `steps` gradients."""
        root_(torch.mul(v, 1 / (1 - self.beta2**steps), out=spare)).add_(self.adam_epsilon)
        torch.div(m, spare, out=spare)
        values.add_(spare.mul_(-learning_rate / (1 - self.beta1**steps)))


def root_(values: torch.Tensor) -> torch.Tensor:
    """The square roots, in place, correctly rounded as IEEE 754 has them.

    torch's own on a CPU are not: with MKL, one in six is off by a unit in the last place.
    """
    if values.device.type != "cpu":
        return values.sqrt_()
    np.sqrt(values.numpy(), out=values.numpy())
    return values


@dataclass
class Moments:
    """The state of Adam."""

    m: Weights
    v: Weights
    steps: int = 0


@dataclass(frozen=True)
class Adam(AdamRule):
    """State: m and v, 8 bytes an element.

    Reference: Kingma & Ba 2015, arXiv:1412.6980. Departure: beta2 is 0.95.
    Example:
        >>> import torch
        >>> from mezo.optimizers import Adam
        >>> from mezo.types import Direction, Update
        >>> from mezo.weights.weights import Weights
        >>> weights, optimizer = Weights([("w", torch.zeros(2, 2))]), Adam()
        >>> update = Update(0, 0.1, (Direction(7, 1.0),), 1)
        >>> state = optimizer.apply_(weights, optimizer.init(weights), update)
        >>> bool(weights.tunables[0].tensor.any())
        True
    """

    def init(self, weights: Weights) -> Moments:
        return Moments(weights.zeros(), weights.zeros())

    def step_(self, weights: Weights, state: Moments, update: Update) -> Moments:
        steps = state.steps + 1

        def adam(n: int, part: slice, values: torch.Tensor) -> None:
            m, v = (of.tunables[n].flat()[:, part] for of in (state.m, state.v))
            g, spare = torch.zeros_like(values), torch.empty_like(values)
            add_gradient_(g, weights, n, part.start, update)
            self.take_in_(m, v, g, spare)
            self.move_(values, m, v, steps, update.learning_rate, spare)

        weights.move_(
            adam, decay=self.decay(update), rounding=self.rounding, rounding_seed=first_seed(update)
        )
        return Moments(state.m, state.v, steps)

    def pack(self, state: Moments) -> Any:
        return {"m": moments.pack(state.m), "v": moments.pack(state.v), "steps": state.steps}

    def unpack(self, weights: Weights, packed: Any) -> Moments:
        return Moments(
            moments.unpack(weights, packed["m"]), moments.unpack(weights, packed["v"]), packed["steps"]
        )
