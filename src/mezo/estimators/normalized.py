"""Directions of unit length, whatever estimator is inside."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mezo.estimators.base import Estimator, as_float32
from mezo.types import Direction, Probe


@dataclass(frozen=True)
class Normalized(Estimator):
    """The inner estimator along z / ||z||, with ||z|| taken over all tunable elements.

    The factor goes into the probe's scale and the recorded slope, so kernels, optimizers and replay
    see plain z: theta moves by lr * g * z / ||z||, where g is the slope per unit of z / ||z||.
    Not in the paper. ||z|| is about sqrt(d), so a step is about d times smaller than without
    (sqrt(d) in the direction, sqrt(d) in the slope) and the matching learning rate d times larger.
    """

    inner: Estimator
    norm: Callable[[int], float]  # seed -> ||z(seed)||_2

    @property
    def epsilon(self) -> float:  # type: ignore[override]
        return self.inner.epsilon

    def ask(self, seeds: Sequence[int]) -> tuple[Probe, ...]:
        norms = {seed: self.norm(seed) for seed in seeds}
        return tuple(replace(p, scale=p.scale / norms[p.seed]) for p in self.inner.ask(seeds))

    def tell(self, probes: Sequence[Probe], losses: Sequence[float]) -> tuple[Direction, ...]:
        return tuple(
            replace(d, projected_grad=as_float32(d.projected_grad / self.norm(d.seed)))
            for d in self.inner.tell(probes, losses)
        )
