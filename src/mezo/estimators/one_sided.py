"""One-sided SPSA (forward differences): all directions share the loss at theta."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mezo.estimators.base import Estimator, as_float32
from mezo.types import THETA, Draw, Probe


@dataclass(frozen=True)
class OneSided(Estimator):
    """g_k = (L(theta + eps z_k) - L(theta)) / eps: n + 1 losses for n directions.

    The forward difference of Nesterov & Spokoiny 2017; the paper's two-point form (MeZO,
    Definition 1) costs 2n. Its error is of first order in eps, (eps / 2) z^T H z, where the two-point
    form's is of second: that is even in z, so the mean over directions stays the gradient, and only
    the noise of g_k grows. The same learning rates serve.

    Args:
        epsilon: the size of the perturbation, in units of the weights.

    Reference: Nesterov & Spokoiny 2017, the forward difference.
    Example:
        >>> from mezo.estimators.one_sided import OneSided
        >>> from mezo.types import Draw
        >>> estimator, draw = OneSided(0.5), Draw(0, (7,))
        >>> [probe.scale for probe in estimator.ask(draw)]
        [0.0, 0.5]
        >>> estimator.tell(draw, [1.0, 1.5])[0]
        (1.0,)
    """

    epsilon: float = 1e-3

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        return (THETA, *(Probe(seed, self.epsilon) for seed in draw.seeds))

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        at_theta, *found = losses
        return tuple(as_float32((loss - at_theta) / self.epsilon) for loss in found), state
