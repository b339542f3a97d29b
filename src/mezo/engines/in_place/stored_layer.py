"""memory="store-layer": the walk in place with the z of one layer at a time in memory."""

from collections.abc import Generator, Iterable, Iterator

import torch

from mezo.engines.in_place.walk import InPlace, add_held_
from mezo.types import Probe
from mezo.weights.weights import Weights


class StoredLayer(InPlace):
    """Walks from probe to probe, layer by layer: from +eps to -eps, a layer's z is made once and used twice.

    To the bits of `InPlace`, which takes the same steps. For a pair of probes z is made three times (to
    +eps, to -eps, back) where `InPlace` makes it four times. Memory: 4 bytes an element of the largest
    layer (`Weights.layers`), which may be the embeddings.
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
        buffer = self._buffer()
        for members in self.layers:
            made_of: tuple[int, float] | None = None  # seed and drift
            for probe, scale in steps:
                for n, z in self._cut(buffer, members):
                    if (probe.seed, probe.drift) != made_of:
                        self.weights.along(n, 0, probe.seed, probe.drift, z)
                    if factor := probe.factor(n):
                        add_held_(self.weights.tunables[n].flat(), z, scale * factor)
                made_of = probe.seed, probe.drift

    def _buffer(self) -> dict[torch.device, torch.Tensor]:
        """Room for the z of any one layer, on every device that has weights."""
        tensors = [t.tensor for t in self.weights.tunables]
        largest = max(sum(tensors[n].numel() for n in members) for members in self.layers)
        return {device: torch.empty(1, largest, device=device) for device in {t.device for t in tensors}}

    def _cut(
        self, buffer: dict[torch.device, torch.Tensor], members: list[int]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """A layer's tensors, by number, and the part of the buffer for the z of each."""
        start = 0
        for n in members:
            t = self.weights.tunables[n].tensor
            yield n, buffer[t.device][:, start : start + t.numel()]
            start += t.numel()
