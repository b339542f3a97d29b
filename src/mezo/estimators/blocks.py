"""Some layers a step: directions that move a subset of the tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mezo.estimators.base import Estimator, Wrapper
from mezo.estimators.scalings import product, union
from mezo.noise import derive_seed
from mezo.types import Direction, Draw, Probe, Scaling


@dataclass(frozen=True)
class Blocks(Wrapper):
    """The inner estimator in the subspace of a few layers, others each step.

    Block-coordinate descent, as in ZO-BCD (Cai et al. 2021, arXiv:2102.10707); not in the paper. What is estimated is the gradient with respect to these
    layers: its noise grows with their size, not the model's, so the learning rate may be larger.
    Layers below the lowest one that moves are computed once for all probes.

    layers: for each layer a scaling that is 1 there (`Weights.layers`). order: "round-robin" takes
    layers_per_step at a time from the first to the last and over again; "random" draws a subset
    without replacement each step, a function of the step's first seed.
    """

    inner: Estimator
    layers: tuple[Scaling, ...]
    layers_per_step: int = 1
    order: Literal["round-robin", "random"] = "round-robin"

    def chosen(self, draw: Draw) -> Scaling:
        """The layers that move at this step."""
        count, many = len(self.layers), min(self.layers_per_step, len(self.layers))
        numbers = list(range(count))
        if self.order == "round-robin":
            numbers = [(draw.step * many + i) % count for i in range(many)]
        else:
            # those with the smallest random numbers: every subset is as likely as any other
            numbers.sort(key=lambda i: derive_seed(draw.seeds[0], draw.step, i))
        return union(tuple(self.layers[i] for i in sorted(numbers[:many])))

    def around(self, draw: Draw, probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
        part = self.chosen(draw)
        return tuple(replace(p, scaling=product(p.scaling, part)) if p.scale else p for p in probes)

    def directions(self, draw: Draw, values: Sequence[float]) -> tuple[Direction, ...]:
        part = self.chosen(draw)
        return tuple(
            replace(d, scaling=product(d.scaling, part)) for d in self.inner.directions(draw, values)
        )
