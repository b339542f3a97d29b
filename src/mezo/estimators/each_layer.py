"""A slope for every layer instead of one for all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mezo.estimators.base import Estimator, Wrapper
from mezo.estimators.scalings import product
from mezo.types import Direction, Draw, Probe, Scaling


@dataclass(frozen=True)
class EachLayer(Wrapper):
    """The inner estimator once for every layer, along the layer's part of the same z.

    With L layers: L times the losses, L slopes a direction, and a variance that grows with the size of
    the largest layer instead of the whole model's: the estimate of the paper's layerwise gradient
    norms (appendix B), used as the gradient itself. A probe at theta is shared by all layers; layers
    below the one that moves are computed once for its probes.

    layers: for each layer a scaling that is 1 there (`Weights.layers`). The state is the inner
    state of every layer.
    """

    inner: Estimator
    layers: tuple[Scaling, ...]

    def init(self) -> Any:
        return tuple(self.inner.init() for _ in self.layers)

    def width(self, n: int) -> int:
        return len(self.layers) * self.inner.width(n)

    def are_slopes(self, n: int) -> tuple[bool, ...]:
        return len(self.layers) * self.inner.are_slopes(n)

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        wanted = (probe for probes in self._asked(draw, state) for probe in probes)
        return tuple(dict.fromkeys(wanted))

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        loss_at = dict(zip(self.ask(draw, state), losses, strict=True))
        values: list[float] = []
        states: list[Any] = []
        for probes, own in zip(self._asked(draw, state), self._states(state), strict=True):
            found, after = self.inner.tell(draw, [loss_at[probe] for probe in probes], own)
            values += found
            states.append(after)
        return tuple(values), tuple(states)

    def directions(self, draw: Draw, values: Sequence[float]) -> tuple[Direction, ...]:
        width = self.inner.width(len(draw.seeds))
        return tuple(
            replace(d, scaling=product(d.scaling, layer))
            for i, layer in enumerate(self.layers)
            for d in self.inner.directions(draw, values[i * width : (i + 1) * width])
        )

    def _asked(self, draw: Draw, state: Any) -> Iterator[tuple[Probe, ...]]:
        """The inner estimator's probes, layer by layer."""
        for layer, own in zip(self.layers, self._states(state), strict=True):
            probes = self.inner.ask(draw, own)
            yield tuple(replace(p, scaling=product(p.scaling, layer)) if p.scale else p for p in probes)

    def _states(self, state: Any) -> tuple[Any, ...]:
        return self.init() if state is None else state
