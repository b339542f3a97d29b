"""SPSA (Spall 1992), n directions: MeZO's Definition 1 and Algorithm 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mezo.estimators.base import Estimator, as_float32
from mezo.types import Draw, Probe


@dataclass(frozen=True)
class TwoPoint(Estimator):
    """g_k = (L(theta + eps z_k) - L(theta - eps z_k)) / (2 eps): 2n losses for n directions.

    Args:
        epsilon: the size of the perturbation, in units of the weights.

    Reference: Malladi et al. 2023, arXiv:2305.17333, Definition 1; Spall 1992.
    Example:
        >>> from mezo.estimators.two_point import TwoPoint
        >>> from mezo.types import Draw
        >>> estimator, draw = TwoPoint(0.5), Draw(0, (7,))
        >>> [probe.scale for probe in estimator.ask(draw)]
        [0.5, -0.5]
        >>> estimator.tell(draw, [1.5, 0.5])[0]
        (1.0,)
    """

    epsilon: float = 1e-3

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        return tuple(Probe(seed, sign * self.epsilon) for seed in draw.seeds for sign in (+1, -1))

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        pairs = zip(losses[0::2], losses[1::2], strict=True)
        return tuple(as_float32((plus - minus) / (2 * self.epsilon)) for plus, minus in pairs), state
