"""A direction for every part of the batch, for the passes of one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mezo.estimators.base import Estimator, Wrapper
from mezo.types import Direction, Draw, Probe


@dataclass(frozen=True)
class RowDirections(Wrapper):
    """The inner estimator once for each of K directions, direction k on the k-th of K equal parts of the batch.

    Every row goes through the model as often as with one direction that all share, and the mean over the parts is an
    n-SPSA estimate of the same gradient. Its variance is (1 + B s) / (1 + s) times less for K = B rows, s the squared
    length of the gradient over the variance of one row's: the noise of z, which is the larger part, is averaged over K
    directions, and the noise of the batch is what it was. The learning rate may be so much larger.

    The inner estimator sees draws of a single seed, and has a state for each part.

    Reference: GRZO, arXiv:2606.02857, has a direction a row.
    Example:
        >>> from mezo.estimators.row_directions import RowDirections
        >>> from mezo.estimators.two_point import TwoPoint
        >>> from mezo.types import Draw
        >>> estimator, draw = RowDirections(TwoPoint(0.5)), Draw(0, (7, 8))
        >>> [(probe.seed, probe.scale, probe.rows) for probe in estimator.ask(draw)]
        [(7, 0.5, (0, 2)), (7, -0.5, (0, 2)), (8, 0.5, (1, 2)), (8, -0.5, (1, 2))]
        >>> estimator.tell(draw, [1.5, 0.5, 2.0, 2.5])[0]
        (1.0, -0.5)
    """

    inner: Estimator

    def init(self) -> Any:
        return None  # a state for each part, once it is known how many there are

    def width(self, n: int) -> int:
        return n * self.inner.width(1)

    def are_slopes(self, n: int) -> tuple[bool, ...]:
        return n * self.inner.are_slopes(1)

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        return self._asked(draw, (), state)[1]

    def ask_again(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[Probe, ...]:
        return self._asked(draw, losses, state)[1]

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        found, _ = self._asked(draw, losses, state)
        told = [
            self.inner.tell(part, own, before)
            for part, own, before in zip(_parts(draw), found, self._states(draw, state), strict=True)
        ]
        after = tuple(state for _, state in told)
        values = tuple(value for values, _ in told for value in values)
        return values, None if after == self._states(draw, None) else after

    def directions(self, draw: Draw, values: Sequence[float]) -> tuple[Direction, ...]:
        width = self.inner.width(1)
        return tuple(
            direction
            for k, part in enumerate(_parts(draw))
            for direction in self.inner.directions(part, values[k * width : (k + 1) * width])
        )

    def _asked(
        self, draw: Draw, losses: Sequence[float], state: Any
    ) -> tuple[list[list[float]], tuple[Probe, ...]]:
        """The losses of each part so far, and the probes that all parts ask for after them."""
        parts, states, rest = _parts(draw), self._states(draw, state), list(losses)
        found: list[list[float]] = [[] for _ in parts]
        asked = [self.inner.ask(part, own) for part, own in zip(parts, states, strict=True)]
        while rest and any(asked):
            for own, probes in zip(found, asked, strict=True):
                own += rest[: len(probes)]
                del rest[: len(probes)]
            asked = [self.inner.ask_again(*each) for each in zip(parts, found, states, strict=True)]
        of = len(parts)
        return found, tuple(replace(p, rows=(k, of)) for k, probes in enumerate(asked) for p in probes)

    def _states(self, draw: Draw, state: Any) -> tuple[Any, ...]:
        return tuple(self.inner.init() for _ in draw.seeds) if state is None else state


def _parts(draw: Draw) -> list[Draw]:
    """A draw of one direction for each part of the batch."""
    return [replace(draw, seeds=(seed,)) for seed in draw.seeds]
