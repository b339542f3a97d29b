"""Directions of unit length, whatever estimator is inside."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mezo.estimators.base import Estimator, Wrapper, as_float32
from mezo.types import Draw, Probe, Scaling


@dataclass(frozen=True)
class Normalized(Wrapper):
    """The inner estimator along z / ||z||, with ||z|| taken over all elements that it moves.

    The factor goes into the probe's scale and the slope, so kernels, optimizers and replay
    see plain z: theta moves by lr * g * z / ||z||, where g is the slope per unit of z / ||z||.
    Not in the paper. ||z|| is about sqrt(d), so a step is about d times smaller than without
    (sqrt(d) in the direction, sqrt(d) in the slope) and the matching learning rate d times larger.
    """

    inner: Estimator
    # seed, scaling -> ||scaling * z(seed)||_2; asked for at every probe and once more for the slope, and a
    # pass of noise over all weights: give one that remembers
    norm: Callable[[int, Scaling | None], float]

    @property
    def gives_slopes(self) -> bool:
        return False  # a value is the slope over the squared length of z

    def around(self, draw: Draw, probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
        return tuple(
            replace(p, scale=p.scale / self.norm(p.seed, p.scaling)) if p.scale else p for p in probes
        )

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        values, state = self.inner.tell(draw, losses, state)
        along = self.inner.directions(draw, values)
        return tuple(as_float32(d.projected_grad / self.norm(d.seed, d.scaling)) for d in along), state
