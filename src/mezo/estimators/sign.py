"""The sign of the slope alone: one bit a direction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mezo.estimators.two_point import TwoPoint
from mezo.types import Draw


@dataclass(frozen=True)
class Sign(TwoPoint):
    """g_k = the sign of the two-point slope: 1, -1, or 0 where both losses are equal; 2n losses.

    The sign of the projected gradient, as in FeedSign (arXiv:2501.17610). With Rademacher noise and
    n = 1 it is also ZO-signSGD (Liu et al. 2019): sign(g z) is sign(g) z. Not in the paper.

    The mean of g z is sqrt(2 / pi) times the unit vector along the gradient (Gaussian z). Steps have
    the same length everywhere: lr * |z|, where two-point's are lr * |g| * |z|. So the learning rate
    that matches is two-point's times the typical |projected gradient|, and it must decay for the loss
    to settle. No batch with an odd loss can throw theta far.

    Args:
        epsilon: the size of the perturbation, in units of the weights.

    Reference: FeedSign, arXiv:2501.17610; Liu et al. 2019 (ZO-signSGD).
    Example:
        >>> from mezo.estimators.sign import Sign
        >>> from mezo.types import Draw
        >>> estimator, draw = Sign(0.5), Draw(0, (7,))
        >>> [probe.scale for probe in estimator.ask(draw)]
        [0.5, -0.5]
        >>> estimator.tell(draw, [1.5, 0.5])[0]
        (1.0,)
    """

    @property
    def gives_slopes(self) -> bool:
        return False

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        slopes, state = super().tell(draw, losses, state)
        return tuple(slope if slope != slope else float((slope > 0) - (slope < 0)) for slope in slopes), state
