"""Probes grouped by direction."""

from collections.abc import Sequence
from dataclasses import dataclass

from mezo.types import Probe, Scaling


@dataclass(frozen=True, slots=True)
class Pair:
    """The probes along one direction: which of them stand at +scale and which at -scale."""

    seed: int
    scale: float
    scaling: Scaling | None
    drift: float
    plus: tuple[int, ...]
    minus: tuple[int, ...]

    def scale_of(self, place: int) -> float:
        """The scale of z, or of m + z / drift, in the tensor at this place in the list of tuned tensors."""
        return self.scale * ((self.scaling.factors[place] if self.scaling else 1.0) * (self.drift or 1.0))


def pair_up(probes: Sequence[Probe]) -> list[Pair]:
    """Group probes by direction, so that each direction's noise is generated once a block."""
    found: dict[tuple[int, float, Scaling | None, float], tuple[list[int], list[int]]] = {}
    for i, probe in enumerate(probes):
        plus, minus = found.setdefault((probe.seed, abs(probe.scale), probe.scaling, probe.drift), ([], []))
        (plus if probe.scale >= 0 else minus).append(i)
    return [Pair(*what, tuple(p), tuple(m)) for what, (p, m) in found.items()]
