"""Updates that come one after another, for `update_sequence_`."""

from collections.abc import Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """One update among several; the arguments of `noise.update_`."""

    seeds: Sequence[int]
    coefficients: Sequence[float]
    decay: float = 1.0
    rounding_seed: int = 0
