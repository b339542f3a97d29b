"""An estimator: the slope from theta and from points on one side of it. --estimator estimator.py:OneSidedTwice"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mezo.estimators.base import Estimator, as_float32
from mezo.types import THETA, Draw, Probe


@dataclass(frozen=True)
class OneSidedTwice(Estimator):
    """g = (4 L(theta + s eps z / 2) - L(theta + s eps z) - 3 L(theta)) / (s eps); s is `side`."""

    epsilon: float = 1e-3
    side: float = 1.0

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        """Theta, and two points for each direction."""
        points = (
            Probe(seed, scale * self.side * self.epsilon) for seed in draw.seeds for scale in (0.5, 1.0)
        )
        return (THETA, *points)

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        """The projected gradients from the losses at those points."""
        here, pairs = losses[0], zip(losses[1::2], losses[2::2], strict=True)
        size = self.side * self.epsilon
        return tuple(as_float32((4 * half - whole - 3 * here) / size) for half, whole in pairs), state
