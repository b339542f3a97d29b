"""The charts of a report as PNG and SVG, in the style of a run's plots."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator

from mezo.ablation.report.panels import Panel, Series
from mezo.escaping import figure_label
from mezo.plots import dress, save

# Okabe and Ito's palette behind black for the baseline; past its end other markers tell variants apart.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A6A00")
_MARKERS = "osD^vP*X"


def write_figure(panels: list[Panel], stem: Path) -> list[Path]:
    """Draw the panels on one page, two a row, into STEM.png and STEM.svg; the paths written."""
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    height = 4.2 if not panels[0].labels else 1.3 + 0.32 * len(panels[0].labels)
    figure = Figure(figsize=(6.2 * columns if columns > 1 else 8.0, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if not panels[0].labels:
        _legend(figure, panels)
    stem.parent.mkdir(parents=True, exist_ok=True)
    return save(figure, stem)


def _draw(axis: Axes, panel: Panel) -> None:
    for series in panel.series:
        _line(axis, series) if series.line else _points(axis, series)
    dress(axis, figure_label(panel.title), figure_label(panel.y_label))
    axis.set_xlabel(figure_label(panel.x_label))
    if not any(series.line for series in panel.series):
        axis.xaxis.set_major_locator(
            AutoLocator()
        )  # of seconds and gigabytes: not whole numbers, as steps are
    if panel.labels:
        axis.axvline(0, color="#52606D", linewidth=1)
        names = [figure_label(textwrap.shorten(name, 70, placeholder=" …")) for name in panel.labels]
        axis.set_yticks(range(len(names)), names[::-1])
        axis.set_ylim(-0.7, len(names) - 0.3)


def _line(axis: Axes, series: Series) -> None:
    color = COLORS[series.color % len(COLORS)]
    few = len(series.x) <= 30
    style: dict[str, Any] = dict(marker="o", markersize=4) if few else {}
    axis.plot(series.x, series.y, color=color, linewidth=1.8, label=figure_label(series.name), **style)
    if series.low is not None and series.high is not None:
        axis.fill_between(series.x, series.low, series.high, color=color, alpha=0.15, linewidth=0)


def _points(axis: Axes, series: Series) -> None:
    axis.errorbar(
        series.x,
        series.y,
        xerr=_reach(series.x, series.x_low, series.x_high),
        yerr=_reach(series.y, series.low, series.high),
        color=COLORS[series.color % len(COLORS)],
        linestyle="none",
        marker=_MARKERS[series.color // len(COLORS) % len(_MARKERS)],
        markersize=6,
        capsize=3,
        label=figure_label(series.name),
    )


def _reach(
    middle: Sequence[float], low: Sequence[float] | None, high: Sequence[float] | None
) -> list[list[float]] | None:
    """Error bars as matplotlib has them: how far below and above the point they reach."""
    if low is None or high is None:
        return None
    return [
        [m - end if math.isfinite(end) else 0.0 for m, end in zip(middle, low, strict=True)],
        [end - m if math.isfinite(end) else 0.0 for m, end in zip(middle, high, strict=True)],
    ]


def _legend(figure: Figure, panels: list[Panel]) -> None:
    """One for the page: the panels show the same variants in the same colours."""
    found = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if len(found) > 1:
        names = [textwrap.shorten(label, 60, placeholder=" …") for label in found]
        figure.legend(found.values(), names, loc="outside lower center", ncols=2, frameon=False)
