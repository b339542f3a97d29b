"""ConMeZO: two-point slopes along directions in a cone around the running mean of the gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, isfinite, pi, sin, sqrt
from typing import TYPE_CHECKING, Any, Self

from mezo.combinations import check_combination
from mezo.config import MeZOConfig
from mezo.estimators.base import Estimator, as_float32
from mezo.types import Direction, Draw, Probe

if TYPE_CHECKING:
    from mezo.weights.weights import Weights

FIRST_BETA = 0.1  # of the warm-up, which begins with m as little more than the last step's estimate


@dataclass(frozen=True)
class Cone(Estimator):
    """z = sqrt(d) cos(angle) m / ||m|| + sin(angle) u, g = the two-point slope along z: 2n losses.

    ConMeZO (Behric et al. 2025, arXiv:2511.02757, Algorithm 1). u is standard normal (or of other
    noise), d the number of tuned elements, m <- beta m + (1 - beta) mean_k g_k z_k, kept by
    `mezo.weights.gradient_mean`: 4 bytes a weight. While m is zero, in the first step, z is u. At an angle of pi / 2 it
    always is, and this is two-point; 0 would leave nothing to chance and is refused.

    Written as z = sin(angle) (u + drift m), with one drift for all directions of a step, so a step's
    values are sin(angle) g_k for each direction, and the drift: n + 1 of them. So a replay does not
    need the norm of m, which devices sum in different orders.

    beta rises from 0.1 over the first `warmup` steps as in the authors' code: a tenth of them at 0.1, then
    to beta - (beta - 0.1) / (1 + 8 p)^3, p = (the part done of the rest)^1.8. Departures from that
    code: its first m is a random vector, here it is zero as in the paper; it estimates ||m||, here it
    is computed.

    Args:
        epsilon: the size of the perturbation, in units of the weights.
        size: d, the number of tuned elements.
        norm: ||m||.
        angle: radians, above 0, at most pi / 2.
        beta: how much of m a step keeps.
        warmup: steps over which beta rises.

    Raises:
        MezoError: by `configured`, settings that the method does not go with.

    Reference: Behric et al. 2025, arXiv:2511.02757, Algorithm 1.
    Example:
        >>> from mezo.estimators.cone import Cone
        >>> from mezo.types import Draw
        >>> estimator = Cone(0.5, size=4, norm=lambda: 0.0)  # the first step: m is zero
        >>> estimator.tell(Draw(0, (7,)), [1.5, 0.5])[0]
        (1.0, 0.0)
    """

    epsilon: float
    size: int  # d
    norm: Callable[[], float]
    angle: float = 1.35  # radians, above 0, at most pi / 2
    beta: float = 0.99
    warmup: int = 2000

    @classmethod
    def configured(cls, config: MeZOConfig, weights: "Weights") -> Self:
        """Raises MezoError for what the method does not go with."""
        check_combination(config)
        return cls(
            config.epsilon,
            weights.num_elements,
            weights.heading.norm,
            config.cone_angle,
            config.cone_beta,
            config.cone_warmup,
        )

    @property
    def gives_slopes(self) -> bool:
        return False  # a value is sin(angle) times the slope

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        drift = self._drift()
        scale = self.epsilon * self._share(drift)
        return tuple(Probe(seed, sign * scale, drift=drift) for seed in draw.seeds for sign in (+1, -1))

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        drift = self._drift()
        share = self._share(drift) / (2 * self.epsilon)
        pairs = zip(losses[0::2], losses[1::2], strict=True)
        return (*(as_float32(share * (plus - minus)) for plus, minus in pairs), drift), state

    def directions(self, draw: Draw, values: Sequence[float]) -> tuple[Direction, ...]:
        pairs = zip(draw.seeds, values[:-1], strict=True)
        return tuple(Direction(seed, value, drift=values[-1]) for seed, value in pairs)

    def width(self, n: int) -> int:
        return n + 1

    def are_slopes(self, n: int) -> tuple[bool, ...]:
        return (True,) * n + (False,)

    def heading_beta(self, step: int) -> float:
        began = self.warmup / 10
        if step >= self.warmup or self.beta <= FIRST_BETA:
            return self.beta
        p = (max(0.0, step - began) / (self.warmup - began)) ** 1.8
        return self.beta - (self.beta - FIRST_BETA) / (1 + 8 * p) ** 3

    def _drift(self) -> float:
        """What m is multiplied by beside u; 0 where z is u."""
        length = self.norm()
        if self.angle == pi / 2 or length == 0:
            return 0.0
        drift = as_float32(sqrt(self.size) * cos(self.angle) / (sin(self.angle) * length))
        return drift if isfinite(drift) else 0.0  # m is as good as zero

    def _share(self, drift: float) -> float:
        return sin(self.angle) if drift else 1.0
