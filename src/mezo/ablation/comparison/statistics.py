"""Means, paired differences with t intervals, and Holm's adjustment over a few seeds.

Runs of a variant and of the baseline with the same seed share data order, evaluation set and noise seeds, so they are
compared seed by seed: the common effect of the seed cancels in the difference.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEVEL = 0.95  # of every interval; claims are made at 1 - LEVEL after the adjustment


@dataclass(frozen=True, slots=True)
class Spread:
    """Values over seeds, in the metric's own unit."""

    count: int
    mean: float  # NaN of no value
    deviation: float  # sample standard deviation (n - 1); NaN of fewer than two

    @property
    def ends(self) -> tuple[float, float]:
        """One deviation below and above the mean; the mean of a single value."""
        reach = self.deviation if self.count > 1 else 0.0
        return self.mean - reach, self.mean + reach


@dataclass(frozen=True, slots=True)
class Paired:
    """Variant minus baseline over the seeds that both have, in the metric's own unit.

    interval: Student's t on the differences; None with fewer than two pairs, and where all differences are equal: their
    spread of 0 comes from the measurement's resolution and is no certainty. p: of the two-sided test of "no
    difference"; None without an interval.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]  # one a seed
    mean: float  # NaN of no pair
    interval: tuple[float, float] | None
    p: float | None

    @property
    def constant(self) -> bool:
        """Whether two seeds or more gave the same difference, to float64 rounding."""
        return len(self.differences) > 1 and self.interval is None


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of finite values."""
    mean = statistics.fmean(values) if values else math.nan
    return Spread(len(values), mean, statistics.stdev(values) if len(values) > 1 else math.nan)


def paired(variant: Mapping[int, float], baseline: Mapping[int, float]) -> Paired:
    """Compare by seed; seeds that only one side has, or where either is not finite, are left out."""
    both = sorted(variant.keys() & baseline.keys())
    seeds = tuple(seed for seed in both if math.isfinite(variant[seed] - baseline[seed]))
    differences = tuple(variant[seed] - baseline[seed] for seed in seeds)
    over = spread(differences)
    # Equal differences of unequal floats (0.81 - 0.80, 0.71 - 0.70) differ by a few units in the last place.
    scale = max((abs(side[seed]) for side in (variant, baseline) for seed in seeds), default=0.0)
    if over.count < 2 or over.deviation <= 8 * math.ulp(scale):
        return Paired(seeds, differences, over.mean, None, None)
    from scipy.stats import ttest_1samp  # a second to import: only where there is something to compute

    test: Any = ttest_1samp(differences, 0.0)
    low, high = map(float, test.confidence_interval(LEVEL))
    return Paired(seeds, differences, over.mean, (low, high), float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for having made all these comparisons (Holm 1979), in the order given.

    The chance of one false claim or more among them stays below the level at which the adjusted
    values are read, whatever their dependence.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def accuracy_error(accuracy: float, examples: int) -> float:
    """One standard error of an accuracy (0 to 1) for the evaluation set's own draw: binomial."""
    return math.sqrt(max(accuracy * (1 - accuracy), 0.0) / max(examples, 1))
