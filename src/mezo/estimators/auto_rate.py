"""A learning rate from what the probes measure, so that nobody has to choose one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, sqrt
from typing import Any, NamedTuple

from mezo.estimators.base import Estimator, Wrapper, as_float32
from mezo.types import THETA, Draw, Probe

FIRST = 16  # steps that all measure the curvature
EVERY = 8  # then one in so many
KEPT, KEPT_SHARED = 0.95, 0.98  # of what was measured before: of curvatures, and of what halves share
SHARE = 1.0  # of the rate that lowers a quadratic loss fastest
RISE = 1.1  # times the rate of the step before, at most
SIGNAL, LEAST = 0.25, 0.02  # the share of g^2 that is no noise of the batch: at first, and at least
# Of sqrt(sum g^4) / sum g^2, taken off: half of the standard error of what halves share where they share nothing.
DOUBT = 0.6
ASSUMED = 16  # measurements that the first is worth
HALVES = (0, 2), (1, 2)
_NUMBERS = ("count", "halved")  # which do not fade


class RateSums(NamedTuple):
    """What the steps so far have measured, older ones counting less.

    Args:
        count: measurements of the curvature.
        energy: in these, the sum of g^2, g the slope of the whole batch.
        bend: the sum of g^2 |c|, c the curvature along the same direction.
        parts: the sum of the mean g^2 of the slopes that the step itself takes.
        halved: steps whose halves had losses of their own.
        both: in these, the sum of g^2.
        fourth: in these, the sum of g^4.
        shared: the sum of the product of the slopes of the two halves.
        rate: of the step before.
    """

    count: int = 0
    energy: float = 0.0
    bend: float = 0.0
    parts: float = 0.0
    halved: int = 0
    both: float = 0.0
    fourth: float = 0.0
    shared: float = 0.0
    rate: float = 0.0


@dataclass(frozen=True)
class AutoRate(Wrapper):
    """The inner estimator, and the learning rate at which its steps lower a quadratic loss fastest.

    A step along z of slope g and curvature c = z^T H z changes the loss by -r G^2 + r^2 g^2 c / 2 at a rate r, G being the
    slope of the loss of all examples, g that of the batch. So r = sum(G^2) / sum(g^2 c) is best on average, and all of it
    comes from forward passes: each half of the batch has losses of its own, whose slopes share G and nothing else, so that
    the mean of their product is that of G^2; and in some steps c = (l+ + l- - 2 l) / eps^2 with the loss l at theta. These
    cost half a step more.

    Negative curvatures count as positive ones: they say how far a slope holds. At first a quarter of g^2 is taken to be
    G^2, which counts as 16 measurements; then what the halves share, less half a standard error, since a rate that is too high
    costs more than one that is too low; at least a fiftieth is. A rate rises by a tenth a step at most. The first steps are shorter, in proportion to the
    curvatures there are. The mean over n directions takes n times the rate. With a direction for each part of the
    batch, one more direction, of all rows, is measured, for both.

    A step's values are the inner estimator's, and the rate: replay and resume compute nothing again. What the config's
    schedule multiplies is this rate.

    Args:
        inner: has both signs of each direction.
        halves: whether the batch can be cut into halves; else a quarter of g^2 is taken to be G^2 throughout.

    Reference: Malladi et al. 2023, arXiv:2305.17333, section 4, for tr(H) in the rate. The measurement is ours.
    Example:
        >>> from mezo.estimators.auto_rate import AutoRate
        >>> from mezo.estimators.two_point import TwoPoint
        >>> from mezo.types import Draw
        >>> estimator, draw = AutoRate(TwoPoint(0.5), halves=False), Draw(0, (7,))
        >>> [probe.scale for probe in estimator.ask(draw)]
        [0.5, -0.5, 0.0]
        >>> estimator.tell(draw, [1.5, 0.5, 0.75])[0]  # slope 1, curvature 2: 1/4 of 1/2, for a start 1/16 of it
        (1.0, 0.0078125)
    """

    inner: Estimator
    halves: bool = True

    def init(self) -> Any:
        return (self.inner.init(), RateSums())

    def width(self, n: int) -> int:
        return self.inner.width(n) + 1

    def are_slopes(self, n: int) -> tuple[bool, ...]:
        return (*self.inner.are_slopes(n), False)

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        probes = self.inner.ask(draw, self._parts(state)[0])
        if probes[0].rows is None:
            return self._cut((*probes, THETA) if _measures(draw) else probes)
        return probes + self._cut((*_beside(draw, probes[0]), THETA)) if _measures(draw) else probes

    def ask_again(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[Probe, ...]:
        return ()

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        inner, measured = self._parts(state)
        probes = self.inner.ask(draw, inner)
        bent = _measures(draw)
        if probes[0].rows is None:
            parts = self._joined(losses)
            own = [sum(each) / len(each) for each in zip(*parts, strict=True)][: len(probes)]
        else:
            own, parts = losses[: len(probes)], self._joined(losses[len(probes) :])
        values, inner = self.inner.tell(draw, own, inner)
        slopes = [
            v for v, is_slope in zip(values, self.inner.are_slopes(len(draw.seeds)), strict=True) if is_slope
        ]
        size = abs(probes[0].scale)
        if parts[0] and self.halves:
            measured = _added(measured, KEPT_SHARED, halved=1, **_shared(size, parts))
        if bent:
            measured = _added(measured, KEPT, count=1, **_bent(size, parts), parts=_mean_square(slopes))
        measured = measured._replace(rate=self._rate(draw, measured))
        return (*values, measured.rate), (inner, measured)

    def directions(self, draw: Draw, values: Sequence[float]) -> Any:
        return self.inner.directions(draw, values[:-1])

    def learning_rate(self, scheduled: float, values: Sequence[float]) -> float:
        return scheduled * values[-1]

    def _rate(self, draw: Draw, m: RateSums) -> float:
        """A float32 value; 0 where no slope and no curvature was ever found."""
        if not (m.bend and m.parts and m.energy):
            return 0.0
        signal = SIGNAL
        if m.both:
            seen = (1 - KEPT_SHARED**m.halved) / (1 - KEPT_SHARED)  # measurements that the sums are worth
            found = m.shared / m.both - DOUBT * sqrt(m.fourth) / m.both
            signal = (SIGNAL * ASSUMED + found * seen) / (ASSUMED + seen)
        best = max(LEAST, min(1.0, signal)) * m.energy / m.bend  # of one direction, on all rows
        noisier = m.energy / m.parts  # below 1 where each direction has a part of the batch
        found = SHARE * min(1.0, m.count / FIRST) * len(draw.seeds) * best * noisier
        return as_float32(min(found, RISE * m.rate) if m.rate and m.count > FIRST else found)

    def _cut(self, probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
        """The probes on each half of the batch."""
        return tuple(replace(p, rows=half) for half in HALVES for p in probes) if self.halves else probes

    def _joined(self, losses: Sequence[float]) -> list[Sequence[float]]:
        """The losses of each half; of the whole batch where it is not cut."""
        middle = len(losses) // 2
        return [losses[:middle], losses[middle:]] if self.halves else [losses]

    def _parts(self, state: Any) -> tuple[Any, RateSums]:
        if state is None:
            return self.init()
        inner, measured = state
        return inner, RateSums(*measured)  # a plain tuple, where the state was read from a file


def _measures(draw: Draw) -> bool:
    return draw.step < FIRST or draw.step % EVERY == 0


def _beside(draw: Draw, like: Probe) -> tuple[Probe, ...]:
    """Both signs of a direction that the step does not take, on all rows."""
    seed, size = draw.seed_of(draw.step, len(draw.seeds)), abs(like.scale)
    return tuple(replace(like, seed=seed, scale=sign * size, rows=None) for sign in (+1, -1))


def _added(sums: RateSums, kept: float, **found: float) -> RateSums:
    """With what a step has found, unless it is not finite."""
    if not all(map(isfinite, found.values())):
        return sums
    old = {name: getattr(sums, name) for name in found}
    return sums._replace(**{n: (1 if n in _NUMBERS else kept) * old[n] + value for n, value in found.items()})


def _slopes(size: float, parts: Sequence[Sequence[float]]) -> list[list[float]]:
    """For each direction the slope of each part. parts: losses at both signs of each direction, perhaps then at theta."""
    return [[(part[i] - part[i + 1]) / (2 * size) for part in parts] for i in range(0, len(parts[0]) - 1, 2)]


def _shared(size: float, parts: Sequence[Sequence[float]]) -> dict[str, float]:
    each = _slopes(size, parts)
    both = _mean_square([(a + b) / 2 for a, b in each])
    return {"both": both, "fourth": both * both, "shared": sum(a * b for a, b in each) / len(each)}


def _bent(size: float, parts: Sequence[Sequence[float]]) -> dict[str, float]:
    energy = bend = 0.0
    each = _slopes(size, parts)
    for n, g in enumerate(each):
        c = [((part[2 * n] - part[-1]) + (part[2 * n + 1] - part[-1])) / size**2 for part in parts]
        square = (sum(g) / len(g)) ** 2 / len(each)
        energy += square
        bend += square * abs(sum(c) / len(c))
    return {"energy": energy, "bend": bend}


def _mean_square(values: Sequence[float]) -> float:
    return sum(v * v for v in values) / len(values)
