"""The paper's in-place walk: +eps, -2 eps, +eps on theta itself, z regenerated from its seed.

Kept because studies compare it, and because an engine whose weights have fixed addresses needs it.
In 16 bits the walk does not come back to where it started; see docs/precision.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mezo.types import Probe
from mezo.weights import Weights


class InPlace:
    """Moves theta to a probe and back, in the memory of theta alone."""

    def __init__(self, weights: Weights):
        self.weights = weights

    @contextmanager
    def at(self, probe: Probe) -> Iterator[None]:
        self.weights.add_noise_(probe.seed, probe.scale)
        try:
            yield
        finally:
            self.weights.add_noise_(probe.seed, -probe.scale)
