"""Probes grouped by direction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mezo.types import Probe


@dataclass(frozen=True, slots=True)
class Pair:
    """The probes along one direction: which of them stand at +scale and which at -scale."""

    at: Probe  # the one at +scale
    plus: tuple[int, ...]
    minus: tuple[int, ...]


def pair_up(probes: Sequence[Probe]) -> list[Pair]:
    """Group probes by direction, so that each direction's noise is generated once a block."""
    found: dict[Probe, tuple[list[int], list[int]]] = {}
    for i, probe in enumerate(probes):
        plus, minus = found.setdefault(replace(probe, scale=abs(probe.scale)), ([], []))
        (plus if probe.scale >= 0 else minus).append(i)
    return [Pair(at, tuple(plus), tuple(minus)) for at, (plus, minus) in found.items()]
