"""The charts of a study in a report. A new one is a file here and a line in CHARTS."""

from collections.abc import Callable
from pathlib import Path

from mezo.ablation.comparison.comparisons import StudyResult
from mezo.ablation.comparison.quantities import Quantity
from mezo.ablation.report.charts.learning_curves import loss_curve, score_curve
from mezo.ablation.report.charts.panel import Panel
from mezo.ablation.report.charts.score_against_cost import score_against_memory, score_against_time

# From the study, its folder and the metric that the task is judged by; None if there is nothing to draw.
CHARTS: tuple[Callable[[StudyResult, Path, Quantity], Panel | None], ...] = (
    score_curve,
    loss_curve,
    score_against_memory,
    score_against_time,
)


def study_panels(study: StudyResult, folder: Path, headline: Quantity) -> list[Panel]:
    """The charts of a study that have data."""
    panels = (chart(study, folder, headline) for chart in CHARTS)
    return [panel for panel in panels if panel is not None]
