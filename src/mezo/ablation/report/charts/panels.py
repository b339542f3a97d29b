"""The charts of a report as plain numbers, which `drawing` draws. A new chart is a function here and a line in CHARTS."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mezo.ablation.comparison.comparisons import Results, StudyResult, VariantResult, by_seed
from mezo.ablation.comparison.quantities import Quantity, quantity
from mezo.ablation.comparison.statistics import spread
from mezo.errors import MezoError
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.runs.plots import Curves, curves, running_mean, window_for

_POINTS = 200  # of a training-loss curve: more than a screen can show
_STEP = "step (updates done)"


@dataclass(frozen=True, slots=True)
class Series:
    """N points, with the lower and upper ends of a line's band or of the points' error bars."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    y_ends: tuple[Sequence[float], Sequence[float]] | None = None
    x_ends: tuple[Sequence[float], Sequence[float]] | None = None
    color: int = 0  # index into the palette; 0 is the baseline's
    line: bool = False  # a line with a band, or points
    hollow: bool = False  # points that are not filled


@dataclass(frozen=True, slots=True)
class Panel:
    key: str  # for file names and anchors
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    labels: tuple[str, ...] = ()  # of the rows of a forest plot: y is their position, the first row on top


def differences(results: Results) -> Panel | None:
    """All differences to the baseline in the headline metric, with their intervals; None without any."""
    rows = [
        (f"{study.name}: {c.variant}", c.paired)
        for study in results.studies
        for c in study.of_metric(results.headline.name)
        if c.paired is not None and c.paired.differences
    ]
    if not rows:
        return None
    factor, unit = results.headline.factor, results.headline.difference_unit
    placed = [(float(n), pair) for n, (_, pair) in zip(reversed(range(len(rows))), rows, strict=True)]
    beyond = [
        (n, pair) for n, pair in placed if pair.interval and not pair.interval[0] <= 0 <= pair.interval[1]
    ]
    within = [each for each in placed if each not in beyond]
    series = tuple(
        Series(
            name,
            [factor * pair.mean for _, pair in points],
            [n for n, _ in points],
            x_ends=([factor * low for low, _ in ends], [factor * high for _, high in ends]),
            color=color,
            hollow=hollow,
        )
        for name, points, color, hollow in (
            ("the interval leaves out 0", beyond, 2, False),
            ("0 is in the interval, or no interval", within, 1, True),
        )
        if points and (ends := [pair.interval or (math.nan, math.nan) for _, pair in points])
    )
    title = f"{results.headline.title}: difference to the baseline"
    x_label = f"difference{f' ({unit})' if unit else ''}"
    return Panel("differences", title, x_label, "", series, tuple(name for name, _ in rows))


def score_curve(study: StudyResult, folder: Path, headline: Quantity) -> Panel | None:
    """Validation score by step; the loss if the task has no score."""
    found = [(n, variant.label, _curves(variant, folder)) for n, variant in study.drawn]
    every = [curve for *_, of_variant in found for curve in of_variant if len(curve.eval_step)]
    if not every:
        return None
    first = next((curve for curve in every if np.isfinite(curve.score).any()), None)
    series = []
    for n, label, runs in found:
        points = [(run.eval_step, run.eval_loss if first is None else run.score) for run in runs]
        series.append(_band(label, n, points))
    if first is None:
        return _panel("score", f"Loss on {every[0].split}", _STEP, "loss", series)
    y_label = first.metric if ":" in first.metric else f"{first.metric} (%)"
    return _panel("score", first.score_title, _STEP, y_label, series)


def loss_curve(study: StudyResult, folder: Path, headline: Quantity) -> Panel | None:
    """Training loss by step, as a running mean."""
    series = []
    for n, variant in study.drawn:
        runs = _curves(variant, folder)
        last = max((int(run.step[-1]) for run in runs), default=1)
        shown = np.linspace(1, last, min(last, _POINTS)).round()
        points = []
        for run in runs:
            kept = np.isin(run.step, shown)
            points.append((run.step[kept], running_mean(run.loss, window_for(len(run.step)))[kept]))
        series.append(_band(variant.label, n, points))
    return _panel("loss", "Training loss, running mean", _STEP, "loss", series)


# From the study, its folder and the metric that the task is judged by; None if there is nothing to draw.
CHARTS: tuple[Callable[[StudyResult, Path, Quantity], Panel | None], ...] = (
    score_curve,
    loss_curve,
    lambda study, folder, headline: _against(
        study, headline, f"{'device' if study.of_metric('device_memory_gb') else 'peak'}_memory_gb", "memory"
    ),
    lambda study, folder, headline: _against(study, headline, "train_seconds", "time"),
)


def study_panels(study: StudyResult, folder: Path, headline: Quantity) -> tuple[Panel, ...]:
    """The charts of a study that have data."""
    return tuple(panel for chart in CHARTS if (panel := chart(study, folder, headline)) is not None)


def _against(study: StudyResult, score: Quantity, metric: str, key: str) -> Panel | None:
    """A point for each variant: means over the seeds that have both, bars of one standard deviation."""
    cost, series = quantity(metric), []
    for n, variant in study.drawn:
        scores, costs = by_seed(variant, score.name), by_seed(variant, cost.name)
        if both := sorted(scores.keys() & costs.keys()):
            x = spread([costs[seed] * cost.factor for seed in both])
            y = spread([scores[seed] * score.factor for seed in both])
            (left, right), (low, high) = x.ends, y.ends
            ends = ([low], [high]), ([left], [right])
            series.append(Series(variant.label, [x.mean], [y.mean], *ends, color=n))
    return _panel(key, f"{score.title} against {key}", cost.heading, score.heading, series)


def _panel(key: str, title: str, x_label: str, y_label: str, series: Sequence[Series]) -> Panel | None:
    """A panel of the series that have points; None without any."""
    found = tuple(each for each in series if len(each.x))
    return Panel(key, title, x_label, y_label, found) if found else None


def _band(name: str, color: int, runs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Series:
    """(steps, values) of runs as a line: their mean by step, and a band of one standard deviation."""
    points: dict[int, list[float]] = {}
    for steps, values in runs:
        for step, value in zip(steps.tolist(), values.tolist(), strict=True):
            if math.isfinite(value):
                points.setdefault(step, []).append(value)
    over = [(float(step), spread(points[step])) for step in sorted(points)]
    ends = [each.ends[0] for _, each in over], [each.ends[1] for _, each in over]
    at, mean = [step for step, _ in over], [each.mean for _, each in over]
    return Series(name, at, mean, ends, color=color, line=True)


def _curves(variant: VariantResult, folder: Path) -> list[Curves]:
    """The curves of each finished run whose folder still exists."""
    found = []
    for run in variant.finished:
        path = RunFolder(folder / run.run).metrics if run.run else None
        try:
            metrics = read_metrics(path) if path is not None and path.is_file() else None
        except MezoError:
            continue  # the tables come from results.jsonl; a damaged run is missing from the curves alone
        if metrics is not None and metrics.steps:
            found.append(curves(metrics))
    return found
