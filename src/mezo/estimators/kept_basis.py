"""Directions that stay in one thin space for many steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mezo.estimators.base import Estimator, Wrapper
from mezo.noise.seeds import derive_seed, in_basis
from mezo.types import Direction, Draw, Probe

_OF_A_BASIS = 1 << 31  # beside the numbers of directions


@dataclass(frozen=True)
class InKeptBasis(Wrapper):
    """The inner estimator, whose seeds have one upper half for `steps` steps: with noise `kept-basis`, one left factor.

    Which one is a function of the run's seed and the number of the step, so nothing is recorded of it.

    Args:
        inner: sees the seeds as they are used.
        steps: that a basis is kept for.

    Reference: LOZO, Chen et al. 2024, arXiv:2410.07698 (lazy sampling); ZO-Muon, arXiv:2602.17155.
    Example:
        >>> from mezo.estimators.kept_basis import InKeptBasis
        >>> from mezo.estimators.two_point import TwoPoint
        >>> from mezo.types import Draw
        >>> estimator = InKeptBasis(TwoPoint(0.5), steps=2)
        >>> a, b, c = (estimator.ask(Draw(step, (7,)))[0].seed >> 32 for step in range(3))
        >>> (a == b, b == c)
        (True, False)
    """

    inner: Estimator
    steps: int

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        return self.inner.ask(self._kept(draw), state)

    def ask_again(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[Probe, ...]:
        return self.inner.ask_again(self._kept(draw), losses, state)

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        return self.inner.tell(self._kept(draw), losses, state)

    def directions(self, draw: Draw, values: Sequence[float]) -> tuple[Direction, ...]:
        return self.inner.directions(self._kept(draw), values)

    def _kept(self, draw: Draw) -> Draw:
        basis = derive_seed(draw.run_seed, draw.step // self.steps, _OF_A_BASIS)
        return replace(draw, seeds=tuple(in_basis(seed, basis) for seed in draw.seeds))
