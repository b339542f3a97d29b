"""Scales for blocks of weights, from the slopes and curvatures that the run's own first steps find."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite, ldexp, log2, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from mezo.errors import MezoError
from mezo.estimators.base import Estimator, Wrapper
from mezo.estimators.scalings import product
from mezo.types import THETA, Direction, Draw, Probe, Scaling

if TYPE_CHECKING:
    from mezo.weights.weights import Weights

EACH = 8  # steps that measure a block
LEVELS, ONE = 16, 8  # a scale is 2^((level - ONE) / 2)
_IN_A_VALUE = 6  # levels: 24 bits, which float32 holds


class ScaleSums(NamedTuple):
    """What the steps so far have found.

    Args:
        inner: the inner estimator's state.
        count: steps that measured a block.
        energy: of each block the sum of g^2, g the slope along its part of z.
        bend: the sum of |c|, c the curvature along it.
        levels: of the blocks' scales, once all are measured.
    """

    inner: Any
    count: int
    energy: tuple[float, ...]
    bend: tuple[float, ...]
    levels: tuple[int, ...] = ()


@dataclass(frozen=True)
class LearnedScales(Wrapper):
    """The inner estimator along s z, with a scale s for each block of weights that is learned in the first steps.

    At first each step moves one block alone, in turn, `EACH` times each: its slope g and its curvature
    c = (l+ + l- - 2 l) / eps^2 are those of the block. The loss l at theta costs half a step more; so learning costs
    half of `EACH` steps for each block, and moves one block a step meanwhile. Then all blocks move, block b by

        s_b^2 = (sum g_b^2 / sum |c_b|) / (sum of all g^2 / sum of all |c|):

    that is the block's own best rate, over that of all together. So steps bend as much as without scales, and the
    learning rate and epsilon stay what they were, and what a step can gain, sum s_b^2 g_b^2 / sum s_b^2 c_b, is larger. The mean of the estimate is the gradient, each block's part times s_b^2.

    Scales are rounded to half powers of 2, from 1/16 to 11. A step's values are the inner estimator's and these levels, six
    to a number, or minus the number of the block that it measures: replay and resume compute nothing again.

    Args:
        inner: has both signs of each direction.
        blocks: for each a scaling of 1 there and 0 elsewhere (`kinds_of`).

    Reference: none; ZO Fine-tuner, arXiv:2510.00419, learns variances of blocks once for a model, by gradients.
    Example:
        >>> from mezo.estimators.learned_scales import LearnedScales
        >>> from mezo.estimators.two_point import TwoPoint
        >>> from mezo.types import Draw, Scaling
        >>> estimator = LearnedScales(TwoPoint(0.5), (Scaling("a", (1.0, 0.0)), Scaling("b", (0.0, 1.0))))
        >>> [(p.scale, p.scaling.name if p.scaling else None) for p in estimator.ask(Draw(0, (7,)))]
        [(0.5, 'a'), (-0.5, 'a'), (0.0, None)]
    """

    inner: Estimator
    blocks: tuple[Scaling, ...]

    def init(self) -> Any:
        none = (0.0,) * len(self.blocks)
        return tuple(ScaleSums(self.inner.init(), 0, none, none))

    def width(self, n: int) -> int:
        return self.inner.width(n) + self._numbers

    def are_slopes(self, n: int) -> tuple[bool, ...]:
        return (*self.inner.are_slopes(n), *(False,) * self._numbers)

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        m = self._parts(state)
        scaling = self._scaling(self._said(m))
        probes = tuple(replace(p, scaling=product(p.scaling, scaling)) for p in self.inner.ask(draw, m.inner))
        return probes if m.levels else (*probes, THETA)

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        m = self._parts(state)
        values, inner = self.inner.tell(draw, losses if m.levels else losses[:-1], m.inner)
        after = (
            m._replace(inner=inner) if m.levels else self._measured(m, values, losses)._replace(inner=inner)
        )
        return (*values, *self._said(m)), tuple(after)

    def directions(self, draw: Draw, values: Sequence[float]) -> tuple[Direction, ...]:
        own = len(values) - self._numbers
        scaling = self._scaling(tuple(values[own:]))
        return tuple(
            replace(d, scaling=product(d.scaling, scaling)) for d in self.inner.directions(draw, values[:own])
        )

    def report(self, state: Any) -> str | None:
        """Which block earned what."""
        m = self._parts(state)
        if not m.levels:
            return (
                f"layer_scaling=learned: the run ended before all blocks were measured, after {m.count} steps"
            )
        energy, bend = (sum(each) or 1.0 for each in (m.energy, m.bend))
        rows = list(zip(self.blocks, m.energy, m.bend, m.levels, strict=True))
        earned = sum(_scale(level) ** 2 * e for _, e, _, level in rows) / energy
        gain = earned / (sum(_scale(level) ** 2 * c for _, _, c, level in rows) / bend or 1.0)
        each = "; ".join(
            f"{block.name} {e / energy:.1%} of the squared slopes, {c / bend:.1%} of the curvature, scale {_scale(level):.3g}"
            for block, e, c, level in rows
        )
        return f"layer_scaling=learned, after {m.count} steps: {each}; best progress of a step as measured then: {gain:.2f} times that of equal scales"

    def _measured(self, m: ScaleSums, values: Sequence[float], losses: Sequence[float]) -> ScaleSums:
        """With what a step has found of its block, unless it is not finite."""
        *pairs, at_theta = losses
        bends = [
            abs((plus - at_theta) + (minus - at_theta)) / self.epsilon**2
            for plus, minus in zip(pairs[0::2], pairs[1::2], strict=True)
        ]
        found = sum(v * v for v in values) / len(values), sum(bends) / len(bends)
        b, count = m.count % len(self.blocks), m.count + 1
        if all(map(isfinite, found)):
            energy, bend = list(m.energy), list(m.bend)
            energy[b] += found[0]
            bend[b] += found[1]
            m = m._replace(energy=tuple(energy), bend=tuple(bend))
        done = count == EACH * len(self.blocks)
        return m._replace(count=count, levels=_levels(m.energy, m.bend) if done else ())

    @property
    def _numbers(self) -> int:
        """How many values hold the levels."""
        return -(-len(self.blocks) // _IN_A_VALUE)

    def _said(self, m: ScaleSums) -> tuple[float, ...]:
        """What is recorded of a step's scales."""
        if not m.levels:
            return (-1.0 - m.count % len(self.blocks), *(0.0,) * (self._numbers - 1))
        parts = (m.levels[i : i + _IN_A_VALUE] for i in range(0, len(m.levels), _IN_A_VALUE))
        return tuple(float(sum(level * LEVELS**i for i, level in enumerate(part))) for part in parts)

    def _scaling(self, said: tuple[float, ...]) -> Scaling:
        if -len(self.blocks) <= said[0] < 0 and said[0].is_integer():
            return self.blocks[int(-1 - said[0])]
        if not all(number.is_integer() and 0 <= number < LEVELS**_IN_A_VALUE for number in said):
            raise MezoError(
                f"layer_scaling=learned: expected a record with the levels of {len(self.blocks)} blocks, found {said}; it "
                "is another run's, or was changed"
            )
        return _scaled(self.blocks, said)

    def _parts(self, state: Any) -> ScaleSums:
        inner, count, *lists = self.init() if state is None else state  # plain: files keep no named tuples
        energy, bend, levels = map(tuple, lists)
        return ScaleSums(inner, count, energy, bend, levels)


@lru_cache(maxsize=64)
def _scaled(blocks: tuple[Scaling, ...], said: tuple[float, ...]) -> Scaling:
    scales = [
        _scale(int(said[n // _IN_A_VALUE]) // LEVELS ** (n % _IN_A_VALUE) % LEVELS)
        for n in range(len(blocks))
    ]
    factors = [
        sum(s * f for s, f in zip(scales, of, strict=True))
        for of in zip(*(b.factors for b in blocks), strict=True)
    ]
    return Scaling("learned", tuple(factors))


def _scale(level: int) -> float:
    halves = level - ONE
    return ldexp(sqrt(2.0) if halves % 2 else 1.0, halves // 2)


def _levels(energy: Sequence[float], bend: Sequence[float]) -> tuple[int, ...]:
    """Of each block; one that has no slope, or does not bend, keeps 1."""
    common = sum(bend) / (sum(energy) or 1.0)
    found = [e / c * common if e and c else 1.0 for e, c in zip(energy, bend, strict=True)]
    return tuple(max(0, min(LEVELS - 1, ONE + round(log2(v)))) for v in found)


def kinds_of(weights: "Weights") -> tuple[Scaling, ...]:
    """The blocks: matrices that have one name but for its numbers, of a layer or an expert, and all vectors together."""
    parts: dict[str, list[int]] = {}
    for n, t in enumerate(weights.tunables):
        name = (
            re.sub(r"(^|\.)\d+(?=\.)", "", t.name).removesuffix(".weight")
            if t.tensor.dim() > 1
            else "vectors"
        )
        parts.setdefault(name, []).append(n)
    return tuple(
        Scaling(name, tuple(float(n in members) for n in range(len(weights.tunables))))
        for name, members in parts.items()
    )
