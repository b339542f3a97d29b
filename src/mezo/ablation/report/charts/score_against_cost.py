"""The headline metric of a study's variants against their memory, and against their time."""

import math
from pathlib import Path

from mezo.ablation.comparison.comparisons import StudyResult, by_seed
from mezo.ablation.comparison.quantities import Quantity, quantity
from mezo.ablation.comparison.statistics import spread
from mezo.ablation.report.charts.panel import Panel, Series, panel_of


def score_against_memory(study: StudyResult, folder: Path, headline: Quantity) -> Panel | None:
    memory = "device_memory_gb" if study.of_metric("device_memory_gb") else "peak_memory_gb"
    return _against(study, headline, quantity(memory), "memory")


def score_against_time(study: StudyResult, folder: Path, headline: Quantity) -> Panel | None:
    return _against(study, headline, quantity("train_seconds"), "time")


def _against(study: StudyResult, score: Quantity, cost: Quantity, key: str) -> Panel | None:
    """A point for each variant: means over the seeds that have both, bars of one standard deviation."""
    series = []
    for n, variant in study.drawn:
        scores, costs = by_seed(variant, score.name), by_seed(variant, cost.name)
        both = sorted(scores.keys() & costs.keys())
        if not both:
            continue
        x, y = (spread([found[s] * q.factor for s in both]) for found, q in ((costs, cost), (scores, score)))
        dx, dy = (0.0 if math.isnan(each.deviation) else each.deviation for each in (x, y))
        bars = ([y.mean - dy], [y.mean + dy], [x.mean - dx], [x.mean + dx])
        series.append(Series(variant.label, [x.mean], [y.mean], *bars, color=n))
    return panel_of(key, f"{score.title} against {key}", cost.heading, score.heading, series)
