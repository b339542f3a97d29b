"""The charts of a report as plain numbers: what both renderers (figures.py, charts.py) draw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mezo.ablation.report.comparisons import Comparison, Results, StudyResult, Variant, by_seed
from mezo.ablation.report.quantities import Quantity, quantity
from mezo.ablation.report.statistics import spread
from mezo.errors import MezoError
from mezo.plots import Curves, curves, running_mean, window_for
from mezo.run import RunFolder, read_metrics

_POINTS = 200  # of a training-loss curve: more than a screen can show side by side


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
    labels: tuple[str, ...] = ()  # of the rows of a forest plot: y is their position


def study_panels(study: StudyResult, folder: Path, headline: Quantity) -> list[Panel]:
    """Learning curves, and the headline metric against memory and time; those that have data."""
    drawn = [
        (n, variant)
        for n, variant in enumerate(study.variants)
        if variant.finished and (n == 0 or not variant.is_baseline)  # its own curve again would hide it
    ]
    found = {variant.label: _curves(variant, folder) for _, variant in drawn}
    panels = [_score_curve(drawn, found), _loss_curve(drawn, found)]
    memory = "device_memory_gb" if study.of_metric("device_memory_gb") else "peak_memory_gb"
    for against in (memory, "train_seconds"):
        panels.append(_against(drawn, headline, quantity(against)))
    return [panel for panel in panels if panel is not None]


def forest(results: Results) -> Panel | None:
    """All differences to the baseline in the headline metric, with their intervals; None without any."""
    rows: list[tuple[str, Comparison]] = [
        (f"{study.name}: {c.variant}", c)
        for study in results.studies
        for c in study.of_metric(results.headline.name)
        if c.paired is not None and c.paired.differences
    ]
    if not rows:
        return None
    factor = results.headline.factor
    position = [float(len(rows) - 1 - n) for n in range(len(rows))]
    mean = [factor * c.paired.mean for _, c in rows if c.paired]
    ends = [c.paired.interval or (math.nan, math.nan) for _, c in rows if c.paired]
    unit = results.headline.difference_unit
    return Panel(
        "differences",
        f"{results.headline.title}: difference to the baseline",
        f"difference{f' ({unit})' if unit else ''}",
        "",
        (
            Series(
                "difference",
                mean,
                position,
                x_low=[factor * low for low, _ in ends],
                x_high=[factor * high for _, high in ends],
                color=1,
            ),
        ),
        tuple(name for name, _ in rows),
    )


def _curves(variant: Variant, folder: Path) -> list[Curves]:
    """Those of each finished run whose folder is still there."""
    found = []
    for run in variant.finished:
        path = RunFolder(folder / run.path).metrics if run.path else None
        if path is not None and path.is_file():
            try:
                metrics = read_metrics(path)
            except MezoError:
                continue  # the tables come from results.jsonl; a damaged run only misses in the curves
            if metrics.steps:
                found.append(curves(metrics))
    return found


Drawn = list[tuple[int, Variant]]


def _score_curve(drawn: Drawn, found: dict[str, list[Curves]]) -> Panel | None:
    """Validation score by step; the loss where the task has no score."""
    every = [curve for per_run in found.values() for curve in per_run]
    scored = [curve for curve in every if np.isfinite(curve.score).any()]
    if not any(len(curve.eval_step) for curve in every):
        return None
    first = scored[0] if scored else every[0]
    series = []
    for n, variant in drawn:
        points: dict[int, list[float]] = {}
        for curve in found[variant.label]:
            values = curve.score if scored else curve.eval_loss
            for step, value in zip(curve.eval_step.tolist(), values.tolist(), strict=True):
                points.setdefault(step, []).append(value)
        series.append(_band(variant.label, n, points))
    y_label = (first.metric + (" (%)" if ":" not in first.metric else "")) if scored else "loss"
    title = first.score_title if scored else f"Loss on {first.split}"
    return _panel("score", title, "step (updates done)", y_label, series)


def _loss_curve(drawn: Drawn, found: dict[str, list[Curves]]) -> Panel | None:
    series = []
    for n, variant in drawn:
        runs = found[variant.label]
        if not runs:
            continue
        last = max(int(curve.step[-1]) for curve in runs)
        shown = set(np.unique(np.linspace(1, last, min(last, _POINTS)).round().astype(int)).tolist())
        points: dict[int, list[float]] = {}
        for curve in runs:
            smooth = running_mean(curve.loss, window_for(len(curve.step)))
            for step, value in zip(curve.step.tolist(), smooth.tolist(), strict=True):
                if step in shown:
                    points.setdefault(step, []).append(value)
        series.append(_band(variant.label, n, points))
    return _panel("loss", "Training loss, running mean", "step (updates done)", "loss", series)


def _band(name: str, color: int, points: dict[int, list[float]]) -> Series:
    """Mean over seeds, and a band of one standard deviation (none where only one seed got there)."""
    steps = sorted(points)
    known = {step: spread([v for v in points[step] if math.isfinite(v)]) for step in steps}
    steps = [step for step in steps if known[step].count]
    mean = [known[step].mean for step in steps]
    around = [0.0 if math.isnan(known[step].deviation) else known[step].deviation for step in steps]
    return Series(
        name,
        [float(step) for step in steps],
        mean,
        [m - a for m, a in zip(mean, around, strict=True)],
        [m + a for m, a in zip(mean, around, strict=True)],
        color=color,
        line=True,
    )


def _against(drawn: Drawn, score: Quantity, cost: Quantity) -> Panel | None:
    """A point for each variant: means over the seeds that have both, bars of one standard deviation."""
    series = []
    for n, variant in drawn:
        scores, costs = by_seed(variant, score.name), by_seed(variant, cost.name)
        both = sorted(scores.keys() & costs.keys())
        if not both:
            continue
        x, y = (
            spread([costs[s] * cost.factor for s in both]),
            spread([scores[s] * score.factor for s in both]),
        )
        dx, dy = (0.0 if math.isnan(s.deviation) else s.deviation for s in (x, y))
        series.append(
            Series(
                variant.label,
                [x.mean],
                [y.mean],
                [y.mean - dy],
                [y.mean + dy],
                [x.mean - dx],
                [x.mean + dx],
                color=n,
            )
        )
    key = "memory" if "memory" in cost.name else "time"
    return _panel(key, f"{score.title} against {key}", cost.heading, score.heading, series)


def _panel(key: str, title: str, x_label: str, y_label: str, series: list[Series]) -> Panel | None:
    series = [s for s in series if len(s.x)]
    return Panel(key, title, x_label, y_label, tuple(series)) if series else None
