"""Times that can be compared on a shared machine.

All cases of a comparison run in turn, round after round, and only ratios of times from the same
round are formed: other load on the machine slows every case of that round.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Seconds = dict[str, list[float]]  # case -> one time a round


@dataclass(frozen=True, slots=True)
class Spread:
    """Summary of a figure that was measured once a round."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def as_dict(self, digits: int = 4) -> dict[str, float]:
        """For JSON; `digits` significant ones."""
        return {name: float(f"{getattr(self, name):.{digits}g}") for name in ("median", "min", "max")}


def interleaved(
    cases: Mapping[str, Callable[[int], object]], rounds: int, settle: Callable[[], object] = lambda: None
) -> Seconds:
    """Seconds of every case in every round, after a round 0 that is not counted.

    Each case is called with the number of the round, 0 to `rounds`, so that all of them can use
    the same batch. Odd rounds run the cases in the opposite order, so that no case always follows the
    same one. `settle` waits for what a case only launched.
    """
    seconds: Seconds = {name: [] for name in cases}
    for number in range(rounds + 1):
        order = list(cases)[:: -1 if number % 2 else 1]
        for name in order:
            settle()
            start = time.perf_counter()
            cases[name](number)
            settle()
            took = time.perf_counter() - start
            if number:
                seconds[name].append(took)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], case: str, base: str) -> Spread:
    """case / base, formed round by round."""
    return Spread.of([a / b for a, b in zip(seconds[case], seconds[base], strict=True)])


def spreads(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """The seconds of every case, for JSON."""
    return {name: Spread.of(values).as_dict() for name, values in seconds.items()}


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """Inside the block torch computes with `count` threads (None: as many as before); yields how many."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


Note = Callable[[str], Any]  # called with what is being measured
