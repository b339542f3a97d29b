"""What every estimator offers. No tensors here: seeds and losses in, slopes out."""

import abc
import struct
from collections.abc import Sequence

from mezo.types import Direction, Probe


class Estimator(abc.ABC):
    epsilon: float

    @abc.abstractmethod
    def ask(self, seeds: Sequence[int]) -> tuple[Probe, ...]:
        """Where the loss is needed this step, given one seed for each of the n directions."""

    @abc.abstractmethod
    def tell(self, probes: Sequence[Probe], losses: Sequence[float]) -> tuple[Direction, ...]:
        """The n slopes, from losses[i] found at probes[i]."""


def as_float32(value: float) -> float:
    """The nearest float32: what the trajectory stores is what is applied."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
