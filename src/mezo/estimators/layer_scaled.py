"""Perturbations scaled layer by layer: the modified SPSA of the paper's appendix B."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, fsum, log
from typing import TYPE_CHECKING, Literal

from mezo.estimators.base import Estimator, Wrapper
from mezo.estimators.scalings import product
from mezo.types import Direction, Draw, Probe, Scaling

if TYPE_CHECKING:
    from mezo.weights.weights import Weights


@dataclass(frozen=True)
class LayerScaled(Wrapper):
    """The inner estimator along d^-1 * z, applied along another scaling of z.

    MeZO, appendix B: variance-modified SPSA (Definition 6) updates along d * z, and its mean is still
    the gradient; expectation-modified SPSA (Definition 7) updates along z, and its mean is the
    gradient with each tensor's part divided by its d, a layerwise-normalised gradient.
    """

    inner: Estimator
    of_probe: Scaling  # d^-1
    of_update: Scaling | None  # d, or None: ones

    @property
    def gives_slopes(self) -> bool:
        return False  # probed along one direction, applied along another

    @classmethod
    def of(
        cls, inner: Estimator, norms: Sequence[float], kind: Literal["variance", "expectation"]
    ) -> "LayerScaled":
        """norms: d of each tensor (`norms_of`), above 0."""
        reciprocal = Scaling("1 / d", tuple(1 / d for d in norms))
        return cls(inner, reciprocal, Scaling("d", tuple(norms)) if kind == "variance" else None)

    def around(self, draw: Draw, probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
        return tuple(replace(p, scaling=product(p.scaling, self.of_probe)) if p.scale else p for p in probes)

    def directions(self, draw: Draw, values: Sequence[float]) -> tuple[Direction, ...]:
        return tuple(
            replace(d, scaling=product(d.scaling, self.of_update))
            for d in self.inner.directions(draw, values)
        )


def norms_of(weights: "Weights") -> tuple[float, ...]:
    """d for every tuned tensor: its Euclidean norm over the geometric mean of all such norms.

    The paper takes d from parameter norms or gradient norms; this is the former, at the start of a
    run. The common divisor is ours: without it epsilon and learning rate would mean something else in
    every model. A tensor of zeros (LoRA's B) has no norm and gets 1. Three decimal digits
    are kept, so that a device that sums in another order comes to the same numbers.
    """
    import torch

    norms = [
        float(torch.linalg.vector_norm(t.tensor.detach(), dtype=torch.float64)) for t in weights.tunables
    ]
    logs = [log(norm) for norm in norms if norm > 0]
    middle = exp(fsum(logs) / len(logs)) if logs else 1.0
    return tuple(float(f"{norm / middle:.3g}") if norm > 0 else 1.0 for norm in norms)
