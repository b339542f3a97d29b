"""Modes that hold z in float32: memory="store" the whole z of a step, memory="store-layer" that of one layer."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import torch

from mezo import noise
from mezo.engines.in_place.walk import InPlace, add_held_
from mezo.types import Probe, Scaling
from mezo.weights.weights import Weights

Noise = dict[tuple[int, float], list[torch.Tensor]]  # by seed and drift: `whole_noise`


class StoredNoise(InPlace):
    """The walk along a z that is made once a step: 4 bytes a weight and direction. To the bits of `InPlace`.

    SGD's update uses the stored z too, except with "matched" rounding; other optimizers regenerate it.
    """

    def __init__(self, weights: Weights):
        self._held: Noise = {}
        super().__init__(_Holding(weights, self._held))

    def release(self) -> None:
        self._held.clear()

    def _move(self, probe: Probe, scale: float) -> None:
        if not scale:
            return
        key = probe.seed, probe.drift
        if key not in self._held:
            self._held[key] = whole_noise(self.weights, *key)
        for n, (t, z) in enumerate(zip(self.weights.tunables, self._held[key], strict=True)):
            if factor := probe.factor(n):
                add_held_(t.flat(), z, scale * factor)


def whole_noise(weights: Weights, seed: int, drift: float = 0.0) -> list[torch.Tensor]:
    """z of every tensor, (1, elements) float32; or m + z / drift (`Weights.along`)."""
    made = []
    for n, t in enumerate(weights.tunables):
        made.append(torch.empty(1, t.tensor.numel(), device=t.tensor.device))
        weights.along(n, 0, seed, drift, made[-1])
    return made


class _Holding(Weights):
    """The same weights, for an update that reads z where it is held."""

    def __init__(self, weights: Weights, held: Noise):
        vars(self).update(vars(weights))  # the same tensors, gathered and checked already
        self._held = held

    def update_(
        self,
        seeds: Sequence[int],
        coefficients: Sequence[float],
        *,
        scalings: Sequence[Scaling | None] = (),
        factor: float = 1.0,
        decay: float = 1.0,
        rounding: noise.Rounding = "stochastic",
    ) -> None:
        held = self._held.keys() >= {(seed, 0.0) for seed in seeds}
        if rounding == "matched" or self.kind == "rank-one" or not seeds or not held:
            how: Any = dict(scalings=scalings, factor=factor, decay=decay, rounding=rounding)
            super().update_(seeds, coefficients, **how)
            return

        def add_stored(n: int, part: slice, values: torch.Tensor) -> None:
            for seed, a, s in zip(seeds, coefficients, scalings or [None] * len(seeds), strict=True):
                if scale := s.factors[n] if s else 1.0:
                    values.add_(torch.mul(self._held[seed, 0.0][n][:, part], factor * a * scale))

        self.move_(add_stored, decay=decay, rounding=rounding, rounding_seed=seeds[0])


class StoredLayer(InPlace):
    """Walks from +eps to -eps layer by layer: a layer's z is made once and used twice. To the bits of `InPlace`.

    For a pair z is made three times instead of four. Memory: 4 bytes an element of the largest layer
    (`Weights.layers`).
    """

    def __init__(self, weights: Weights):
        super().__init__(weights)
        self.layers = [[n for n, f in enumerate(s.factors) if f] for s in weights.layers().values()]

    def visit(self, probes: Iterable[Probe]) -> Generator[Probe]:
        place: Probe | None = None
        try:
            for probe in probes:
                self._walk(place, probe)
                place = probe
                yield probe
        finally:
            self._walk(place, None)

    def _walk(self, source: Probe | None, target: Probe | None) -> None:
        steps = [(p, sign * p.scale) for p, sign in ((source, -1), (target, +1)) if p and p.scale]
        if not steps:
            return
        tensors = [t.tensor for t in self.weights.tunables]
        largest = max(sum(tensors[n].numel() for n in members) for members in self.layers)
        buffer = {device: torch.empty(1, largest, device=device) for device in {t.device for t in tensors}}
        for members in self.layers:
            made_of: tuple[int, float] | None = None  # seed and drift
            for probe, scale in steps:
                for n, z in self._cut(buffer, members):
                    if (probe.seed, probe.drift) != made_of:
                        self.weights.along(n, 0, probe.seed, probe.drift, z)
                    if factor := probe.factor(n):
                        add_held_(self.weights.tunables[n].flat(), z, scale * factor)
                made_of = probe.seed, probe.drift

    def _cut(
        self, buffer: dict[torch.device, torch.Tensor], members: list[int]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """A layer's tensors, by number, and the part of the buffer for the z of each."""
        start = 0
        for n in members:
            t = self.weights.tunables[n].tensor
            yield n, buffer[t.device][:, start : start + t.numel()]
            start += t.numel()
