"""SPSA (Spall 1992), n directions: MeZO's Definition 1 and Algorithm 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mezo.estimators.base import Estimator, as_float32
from mezo.types import Draw, Probe


@dataclass(frozen=True)
class TwoPoint(Estimator):
    """g_k = (L(theta + eps z_k) - L(theta - eps z_k)) / (2 eps): 2n losses for n directions."""

    epsilon: float = 1e-3

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        return tuple(Probe(seed, sign * self.epsilon) for seed in draw.seeds for sign in (+1, -1))

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        pairs = zip(losses[0::2], losses[1::2], strict=True)
        return tuple(as_float32((plus - minus) / (2 * self.epsilon)) for plus, minus in pairs), state
