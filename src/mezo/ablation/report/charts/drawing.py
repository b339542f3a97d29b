"""Drawing the charts of a report: pages of them as PNG and SVG files, and each one as SVG inside the HTML page."""

import io
import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mezo.ablation.report.charts.panels import Panel
from mezo.runs.plots import dress, save
from mezo.util.escaping import figure_label, html_text
from mezo.util.figures import AutoLocator, Axes, Figure, rc_context

# Okabe and Ito's palette behind black for the baseline; past its end other markers tell variants apart.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A6A00")
_MARKERS = "osD^vP*X"
_FEW = 30  # points of a line that get markers
_INK, _GRID, _ZERO = "#1f2934", "#e4e7eb", "#52606d"
# The page has its own colours for light and dark, under these names.
_VARIABLES = {_INK: "--ink", _GRID: "--line", _ZERO: "--soft"}
_VARIABLES |= {color.lower(): f"--c{n}" for n, color in enumerate(COLORS)}
_INKED = (
    "text.color",
    "axes.labelcolor",
    "axes.edgecolor",
    "xtick.color",
    "ytick.color",
    "legend.labelcolor",
)
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", **dict.fromkeys(_INKED, _INK)}


def write_figure(panels: Sequence[Panel], stem: Path) -> list[Path]:
    """Draw the panels on one page, two a row, into STEM.png and STEM.svg; the paths written."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    return save(_figure(panels), stem)


def inline_svg(panel: Panel, name: str) -> str:
    """The panel as an <svg> element for a page: its colours follow the page's, a point's title says its numbers.

    name: unique on the page.
    """
    buffer, tips = io.StringIO(), dict[str, str]()
    with rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = _figure([panel], tips)
        figure.axes[0].set_title("", loc="left")  # the title is the page's
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL
    )
    label = rf'<svg \1 role="img" aria-label="{name}">'
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', label, text, count=1)
    text = re.sub(
        r'<g id="(tip_\d+_)">', lambda found: f"<g><title>{html_text(tips[found[1]])}</title>", text
    )
    text = re.sub(r'<g id="[\w.]+_\d+">', "<g>", text)
    pattern = rf"(?<=: )(?:{'|'.join(_VARIABLES)})\b"
    return re.sub(pattern, lambda found: f"var({_VARIABLES[found[0]]})", text)


def _figure(panels: Sequence[Panel], tips: dict[str, str] | None = None) -> Figure:
    """tips: filled with the numbers of each point, by the id of its mark."""
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    forest = panels[0].labels
    height = 1.3 + 0.32 * len(forest) if forest else 4.2
    width = 12.4 if columns > 1 else 8.0 if tips is None or forest else 6.2
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel)
        if tips is not None:
            _add_tips(axis, panel, tips)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    _add_legend(figure, least=1 if forest else 2)
    return figure


def _draw(axis: Axes, panel: Panel) -> None:
    for series in panel.series:
        look: dict[str, Any] = dict(color=COLORS[series.color % len(COLORS)], label=figure_label(series.name))
        if series.line:
            look |= dict(marker="o", markersize=4) if len(series.x) <= _FEW else {}
            axis.plot(series.x, series.y, linewidth=1.8, **look)
            if series.y_ends is not None:
                axis.fill_between(series.x, *series.y_ends, color=look["color"], alpha=0.15, linewidth=0)
        else:
            axis.errorbar(
                series.x,
                series.y,
                xerr=_reach(series.x, series.x_ends),
                yerr=_reach(series.y, series.y_ends),
                linestyle="none",
                marker=_MARKERS[series.color // len(COLORS) % len(_MARKERS)],
                markersize=6,
                markerfacecolor="none" if series.hollow else None,
                capsize=3,
                **look,
            )
    dress(axis, figure_label(panel.title), figure_label(panel.y_label))
    axis.set_xlabel(figure_label(panel.x_label))
    if not any(series.line for series in panel.series):
        # seconds and gigabytes are no whole numbers, as steps are
        axis.xaxis.set_major_locator(AutoLocator())
    if panel.labels:
        axis.axvline(0, color=_ZERO, linewidth=1)
        names = [figure_label(textwrap.shorten(name, 70, placeholder=" …")) for name in panel.labels]
        axis.set_yticks(range(len(names)), names[::-1])
        axis.set_ylim(-0.7, len(names) - 0.3)


def _reach(
    middle: Sequence[float], ends: tuple[Sequence[float], Sequence[float]] | None
) -> np.ndarray | None:
    """Error bars as matplotlib has them: how far below and above the point they reach, 0 without an end."""
    if ends is None:
        return None
    return np.nan_to_num(np.array([np.subtract(middle, ends[0]), np.subtract(ends[1], middle)]))


def _add_tips(axis: Axes, panel: Panel, tips: dict[str, str]) -> None:
    """An invisible mark on every point that carries its numbers."""
    for series in panel.series:
        if series.line and len(series.x) > _FEW:
            continue
        for x, y in zip(series.x, series.y, strict=True):
            tips[gid := f"tip_{len(tips)}_"] = (
                f"{panel.labels[-1 - int(y)]}: {x:.4g}"
                if panel.labels
                else f"{series.name}: {x:.4g}, {y:.4g}"
            )
            axis.plot([x], [y], "o", color=COLORS[0], markersize=10, alpha=0, gid=gid, label="_none")


def _add_legend(figure: Figure, *, least: int) -> None:
    """One for the page, of `least` entries or more: the panels show the same variants in the same colours."""
    found = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if len(found) >= least:
        names = [textwrap.shorten(label, 60, placeholder=" …") for label in found]
        figure.legend(found.values(), names, loc="outside lower center", ncols=2, frameon=False)
