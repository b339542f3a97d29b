"""All differences to the baseline in the headline metric, with their intervals: a forest plot."""

import math

from mezo.ablation.comparison.comparisons import Results
from mezo.ablation.report.charts.panel import Panel, Series


def differences(results: Results) -> Panel | None:
    """A row for each comparison; None without any."""
    rows = [
        (f"{study.name}: {c.variant}", c.paired)
        for study in results.studies
        for c in study.of_metric(results.headline.name)
        if c.paired is not None and c.paired.differences
    ]
    if not rows:
        return None
    factor, unit = results.headline.factor, results.headline.difference_unit
    ends = [pair.interval or (math.nan, math.nan) for _, pair in rows]
    series = Series(
        "difference",
        [factor * pair.mean for _, pair in rows],
        [float(len(rows) - 1 - n) for n in range(len(rows))],
        x_low=[factor * low for low, _ in ends],
        x_high=[factor * high for _, high in ends],
        color=1,
    )
    title = f"{results.headline.title}: difference to the baseline"
    x_label = f"difference{f' ({unit})' if unit else ''}"
    return Panel("differences", title, x_label, "", (series,), tuple(name for name, _ in rows))
