"""Learning curves of a study: the score, and the training loss, by step."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mezo.ablation.comparison.comparisons import StudyResult, VariantResult
from mezo.ablation.comparison.quantities import Quantity
from mezo.ablation.report.charts.panel import Panel, band, panel_of
from mezo.errors import MezoError
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.runs.plots import Curves, curves, running_mean, window_for

_POINTS = 200  # of a training-loss curve: more than a screen can show


def score_curve(study: StudyResult, folder: Path, headline: Quantity) -> Panel | None:
    """Validation score by step; the loss if the task has no score."""
    found = {variant.label: list(_curves(variant, folder)) for _, variant in study.drawn}
    every = [curve for of_variant in found.values() for curve in of_variant]
    scored = [curve for curve in every if np.isfinite(curve.score).any()]
    if not any(len(curve.eval_step) for curve in every):
        return None
    first = scored[0] if scored else every[0]
    series = []
    for n, variant in study.drawn:
        points: dict[int, list[float]] = {}
        for curve in found[variant.label]:
            values = curve.score if scored else curve.eval_loss
            for step, value in zip(curve.eval_step.tolist(), values.tolist(), strict=True):
                points.setdefault(step, []).append(value)
        series.append(band(variant.label, n, points))
    y_label = (first.metric + (" (%)" if ":" not in first.metric else "")) if scored else "loss"
    title = first.score_title if scored else f"Loss on {first.split}"
    return panel_of("score", title, "step (updates done)", y_label, series)


def loss_curve(study: StudyResult, folder: Path, headline: Quantity) -> Panel | None:
    """Training loss by step, as a running mean."""
    series = []
    for n, variant in study.drawn:
        runs = list(_curves(variant, folder))
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
        series.append(band(variant.label, n, points))
    return panel_of("loss", "Training loss, running mean", "step (updates done)", "loss", series)


def _curves(variant: VariantResult, folder: Path) -> Iterator[Curves]:
    """The curves of each finished run whose folder still exists."""
    for run in variant.finished:
        path = RunFolder(folder / run.path).metrics if run.path else None
        if path is None or not path.is_file():
            continue
        try:
            metrics = read_metrics(path)
        except MezoError:
            continue  # the tables come from results.jsonl; a damaged run is missing from the curves alone
        if metrics.steps:
            yield curves(metrics)
