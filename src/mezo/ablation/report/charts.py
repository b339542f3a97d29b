"""The charts of a report for a browser: figures in plotly's JSON, without colours.

report.js gives each trace its colour by `palette`, so that the same page serves light and dark.
"""

import math
from collections.abc import Sequence
from typing import Any

from mezo.ablation.report.panels import Panel, Series
from mezo.escaping import chart_label


def chart(panel: Panel) -> dict[str, Any]:
    """The panel as {"data": [...], "layout": {...}}, numbers rounded to 6 significant digits."""
    traces = [trace for series in panel.series for trace in _traces(series)]
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": chart_label(panel.x_label)}},
        "yaxis": {"title": {"text": chart_label(panel.y_label)}},
    }
    if panel.labels:
        rows = list(range(len(panel.labels)))
        layout["yaxis"] |= {
            "tickmode": "array",
            "tickvals": rows,
            "ticktext": [_shortened(name) for name in panel.labels[::-1]],
            "range": [-0.6, len(rows) - 0.4],
            "zeroline": False,
        }
        layout["xaxis"]["zeroline"] = True
        layout["showlegend"] = False
        layout["height"] = 120 + 34 * len(rows)
        traces[-1]["hovertext"] = [chart_label(name) for name in panel.labels]
        traces[-1]["hovertemplate"] = "%{hovertext}<br>%{x:.4~g}<extra></extra>"
    return {"data": traces, "layout": layout}


def _traces(series: Series) -> list[dict[str, Any]]:
    if series.line:
        return _line(series)
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": chart_label(series.name),
            "palette": series.color,
            "x": _numbers(series.x),
            "y": _numbers(series.y),
            "marker": {"size": 10},
            "error_x": _error(series.x, series.x_low, series.x_high),
            "error_y": _error(series.y, series.low, series.high),
        }
    ]


def _line(series: Series) -> list[dict[str, Any]]:
    name = chart_label(series.name)
    found: list[dict[str, Any]] = []
    if series.low is not None and series.high is not None and len(series.x) > 1:
        found.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "legendgroup": name,
                "palette": series.color,
                "band": True,
                "x": _numbers([*series.x, *reversed(series.x)]),
                "y": _numbers([*series.high, *reversed(series.low)]),
                "fill": "toself",
                "line": {"width": 0},
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    found.append(
        {
            "type": "scatter",
            "mode": "lines+markers" if len(series.x) <= 30 else "lines",
            "name": name,
            "legendgroup": name,
            "palette": series.color,
            "x": _numbers(series.x),
            "y": _numbers(series.y),
            "line": {"width": 2},
        }
    )
    return found


def _error(
    middle: Sequence[float], low: Sequence[float] | None, high: Sequence[float] | None
) -> dict[str, Any]:
    if low is None or high is None:
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [_number(h - m) or 0 for m, h in zip(middle, high, strict=True)],
        "arrayminus": [_number(m - low_end) or 0 for m, low_end in zip(middle, low, strict=True)],
        "thickness": 1.5,
        "width": 4,
    }


def _shortened(name: str, limit: int = 48) -> str:
    return chart_label(name if len(name) <= limit else name[: limit - 1] + "…")


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
