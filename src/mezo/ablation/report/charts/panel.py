"""A chart of a report as plain numbers, which `drawing` draws."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mezo.ablation.comparison.statistics import spread


@dataclass(frozen=True, slots=True)
class Series:
    """N points. low, high: a line's band, or a point's error bar; None: neither."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    x_low: Sequence[float] | None = None  # error bar along x
    x_high: Sequence[float] | None = None
    color: int = 0  # index into the palette; 0 is the baseline's
    line: bool = False  # a line with a band, or points


@dataclass(frozen=True, slots=True)
class Panel:
    key: str  # for file names and anchors
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    labels: tuple[str, ...] = ()  # of the rows of a forest plot: y is their position, the first row on top


def panel_of(key: str, title: str, x_label: str, y_label: str, series: Sequence[Series]) -> Panel | None:
    """A panel of the series that have points; None without any."""
    found = tuple(each for each in series if len(each.x))
    return Panel(key, title, x_label, y_label, found) if found else None


def band(name: str, color: int, points: Mapping[int, list[float]]) -> Series:
    """Values by step as a line: their mean, and a band of one standard deviation (of width 0 for one value)."""
    finite = {step: [v for v in values if math.isfinite(v)] for step, values in sorted(points.items())}
    spreads = {step: spread(values) for step, values in finite.items() if values}
    around = [0.0 if math.isnan(each.deviation) else each.deviation for each in spreads.values()]
    mean = [each.mean for each in spreads.values()]
    return Series(
        name,
        [float(step) for step in spreads],
        mean,
        [m - a for m, a in zip(mean, around, strict=True)],
        [m + a for m, a in zip(mean, around, strict=True)],
        color=color,
        line=True,
    )
