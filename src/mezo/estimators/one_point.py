"""One-point SPSA with residual feedback: a single forward pass a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mezo.estimators.base import Estimator, as_float32
from mezo.types import Draw, Probe


@dataclass(frozen=True)
class OnePoint(Estimator):
    """g_k = (L_t(theta_t + eps z_k) - L_{t-1}(theta_{t-1} + eps z')) / eps: n losses for n directions.

    Zhang, Zhou, Ji & Zavlanos 2022 (arXiv:2006.10820), the one-point estimate that MeZO's
    appendix B compares with. z' is the direction of the step before, whose loss is the state; it is
    independent of z_k, so the mean is the gradient. With n > 1 the mean of the last step's n losses is
    subtracted, which has less noise than any one of them (the paper has n = 1).

    The first step has nothing to subtract: its slopes are 0, and it moves nothing. Later ones carry,
    divided by eps, all by which the batches of two steps differ: use large batches, a larger epsilon
    and a learning rate tens of times smaller than for two-point.

    Args:
        epsilon: the size of the perturbation, in units of the weights.

    Reference: Zhang, Zhou, Ji & Zavlanos 2022, arXiv:2006.10820; Malladi et al. 2023, appendix B.
    Example:
        >>> from mezo.estimators.one_point import OnePoint
        >>> from mezo.types import Draw
        >>> estimator = OnePoint(0.5)
        >>> values, state = estimator.tell(Draw(0, (7,)), [1.0])
        >>> estimator.tell(Draw(1, (8,)), [1.5], state)[0]
        (1.0,)
    """

    epsilon: float = 1e-3

    @property
    def gives_slopes(self) -> bool:
        return False  # most of a value is what two steps differ by

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        return tuple(Probe(seed, self.epsilon) for seed in draw.seeds)

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        """state: the mean loss of the previous step's probes, or None before the first step."""
        now = fmean(losses)
        if state is None:
            return (0.0,) * len(losses), now
        return tuple(as_float32((loss - state) / self.epsilon) for loss in losses), now
