"""SPSA (Spall 1992), n directions: MeZO's Definition 1 and Algorithm 1."""

from collections.abc import Sequence
from dataclasses import dataclass

from mezo.estimators.base import Estimator, as_float32
from mezo.types import Direction, Probe


@dataclass(frozen=True)
class TwoPoint(Estimator):
    """g_k = (L(theta + eps z_k) - L(theta - eps z_k)) / (2 eps): 2n losses for n directions."""

    epsilon: float = 1e-3

    def ask(self, seeds: Sequence[int]) -> tuple[Probe, ...]:
        return tuple(Probe(seed, sign * self.epsilon) for seed in seeds for sign in (+1, -1))

    def tell(self, probes: Sequence[Probe], losses: Sequence[float]) -> tuple[Direction, ...]:
        return tuple(
            Direction(probe.seed, as_float32((plus - minus) / (2 * self.epsilon)))
            for probe, plus, minus in zip(probes[0::2], losses[0::2], losses[1::2], strict=True)
        )
