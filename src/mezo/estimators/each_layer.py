"""A slope for every layer instead of one for all."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mezo.estimators.base import Estimator, Wrapper
from mezo.estimators.scalings import product
from mezo.types import Direction, Draw, Probe, Scaling


@dataclass
class _Asked:
    by_layer: list[tuple[Probe, ...]]
    loss_at: dict[Probe, float] = field(default_factory=dict)

    @property
    def wanted(self) -> tuple[Probe, ...]:
        """The probes without a loss yet, each once: a probe at theta is shared by all layers."""
        return tuple(dict.fromkeys(p for probes in self.by_layer for p in probes if p not in self.loss_at))


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
        return self._asked(draw, (), state).wanted

    def ask_again(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[Probe, ...]:
        return self._asked(draw, losses, state).wanted

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        asked = self._asked(draw, losses, state)
        values: list[float] = []
        states: list[Any] = []
        for probes, own in zip(asked.by_layer, self._states(state), strict=True):
            found, after = self.inner.tell(draw, [asked.loss_at[probe] for probe in probes], own)
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

    def _asked(self, draw: Draw, losses: Sequence[float], state: Any) -> _Asked:
        """What every layer's estimator has asked for, and what it asks next, after these losses."""
        states, rest = self._states(state), list(losses)
        asked = _Asked(
            [
                self._of(layer, self.inner.ask(draw, own))
                for layer, own in zip(self.layers, states, strict=True)
            ]
        )
        while asked.wanted and len(rest) >= len(asked.wanted):
            asked.loss_at.update(zip(asked.wanted, rest, strict=False))
            rest = list(losses)[len(asked.loss_at) :]
            for n, (layer, own) in enumerate(zip(self.layers, states, strict=True)):
                found = [asked.loss_at[probe] for probe in asked.by_layer[n]]
                asked.by_layer[n] += self._of(layer, self.inner.ask_again(draw, found, own))
        return asked

    @staticmethod
    def _of(layer: Scaling, probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
        return tuple(replace(p, scaling=product(p.scaling, layer)) if p.scale else p for p in probes)

    def _states(self, state: Any) -> tuple[Any, ...]:
        return self.init() if state is None else state
