"""A bound on the projected gradient, fixed or learned from the run so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, copysign, isfinite
from typing import Any

from mezo.estimators.base import Estimator, Wrapper, as_float32
from mezo.types import Draw, Probe

WINDOW = 100  # slopes that are remembered
FEWEST = 10  # with fewer there is no quantile to speak of, and nothing is clipped


@dataclass(frozen=True)
class Clipped(Wrapper):
    """The inner estimator's projected gradients, of magnitude at most a bound. Not in the paper.

    bound: absolute. quantile: the bound is this quantile of the last 100 magnitudes, as they were
    before clipping; it begins to act after 10. With both, the smaller bound holds. What is recorded is
    clipped already, so a replay needs no memory of the slopes.

    The state is (inner state, magnitudes).
    """

    inner: Estimator
    bound: float | None = None
    quantile: float | None = None

    def init(self) -> Any:
        return (self.inner.init(), ())

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        return self.inner.ask(draw, self._parts(state)[0])

    def ask_again(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[Probe, ...]:
        return self.inner.ask_again(draw, losses, self._parts(state)[0])

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        inner, past = self._parts(state)
        values, inner = self.inner.tell(draw, losses, inner)
        limit, slopes = self._limit(past), self.inner.are_slopes(len(draw.seeds))
        if self.quantile is not None:
            new = (abs(v) for v, slope in zip(values, slopes, strict=True) if slope and isfinite(v))
            past = (*past, *new)[-WINDOW:]
        clipped = (_limited(v, limit) if slope else v for v, slope in zip(values, slopes, strict=True))
        return tuple(clipped), (inner, past)

    def report(self, state: Any) -> str | None:
        return self.inner.report(self._parts(state)[0])

    def _parts(self, state: Any) -> tuple[Any, tuple[float, ...]]:
        return self.init() if state is None else state

    def _limit(self, past: tuple[float, ...]) -> float:
        limits = [float("inf") if self.bound is None else self.bound]
        if self.quantile is not None and len(past) >= FEWEST:
            limits.append(sorted(past)[ceil(self.quantile * len(past)) - 1])
        return min(limits)


def _limited(value: float, limit: float) -> float:
    # what is not finite stays so: the step must fail, not be clipped
    return as_float32(copysign(limit, value)) if isfinite(value) and abs(value) > limit else value
