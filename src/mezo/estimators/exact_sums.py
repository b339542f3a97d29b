"""Projected gradients whose sum of signs is exact in float32."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mezo.estimators.base import Estimator, Wrapper, as_float32
from mezo.noise.exact_sums import rounded
from mezo.types import Draw, Scaling


@dataclass(frozen=True)
class ExactSums(Wrapper):
    """The inner estimator's projected gradients, rounded to integers times one power of two (`mezo.noise.exact_sums`).

    With noise of signs, theta then moves along a sum that has the same bits in any order. Directions that move the same
    tensors, which are those of one scaling, are rounded together: with n of them, to 2^-23 n of the largest. What is
    recorded is what is applied.
    """

    inner: Estimator

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        values, state = self.inner.tell(draw, losses, state)
        along = self.inner.directions(draw, values)
        if tuple(d.projected_grad for d in along) != values:
            return values, state  # not one to each direction: they are rounded where they are applied
        together: dict[Scaling | None, list[int]] = {}
        for place, direction in enumerate(along):
            together.setdefault(direction.scaling, []).append(place)
        found = list(values)
        for places in together.values():
            for place, value in zip(places, rounded([values[i] for i in places]), strict=True):
                found[place] = as_float32(value)
        return tuple(found), state
