"""FZOO: one-sided differences over several directions, divided by the spread of their losses."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import stdev
from typing import TYPE_CHECKING, Any, Self

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.estimators.base import as_float32
from mezo.estimators.one_sided import OneSided
from mezo.types import Draw

if TYPE_CHECKING:
    from mezo.weights.weights import Weights


@dataclass(frozen=True)
class FZOO(OneSided):
    """g_k = (L(theta + eps z_k) - L(theta)) / sigma: n + 1 losses for n directions, n >= 2.

    FZOO (Dang et al. 2025, arXiv:2506.09034). sigma is the sample standard deviation of the n losses
    L(theta + eps z_k), about eps times the length of the gradient: so the step is SGD's on a gradient
    of length 1, and grows where the loss is flat. The method as published uses n = 8 and signs for z:
    `num_directions: 8`, `noise: rademacher`.

    The method's gradient is a difference over eps; the eps is left out here, so that the learning rate
    does not depend on it: eta there is lr = eta / eps here. A learning rate that matches two-point's is
    that one times the typical |projected gradient|, as for `sign`. Where all n losses are equal the
    slopes are 0.

    Args:
        epsilon: the size of the perturbation, in units of the weights.

    Reference: Dang et al. 2025, arXiv:2506.09034. Departure: eps is left out of the slope.
    Example:
        >>> from mezo.estimators.fzoo import FZOO
        >>> from mezo.types import Draw
        >>> values, _ = FZOO(0.5).tell(Draw(0, (7, 8)), [1.0, 2.0, 0.0])
        >>> [round(value, 3) for value in values]
        [0.707, -0.707]
    """

    @classmethod
    def configured(cls, config: MeZOConfig, weights: "Weights") -> Self:
        """Raises MezoError for a single direction."""
        fewest = min(config.num_directions, config.final_directions or config.num_directions)
        if fewest < 2:
            raise MezoError(
                f"estimator 'fzoo' divides by the spread of the losses of 2 or more directions, found "
                f"num_directions={fewest}; the method's own number is 8"
            )
        return cls(config.epsilon)

    @property
    def gives_slopes(self) -> bool:
        return False

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        if not all(map(isfinite, losses)):
            return super().tell(draw, losses, state)  # not finite either, which the caller reports
        at_theta, *found = losses
        spread = stdev(found)
        return tuple(as_float32((loss - at_theta) / spread) if spread else 0.0 for loss in found), state
