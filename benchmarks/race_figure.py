"""The figure of a race: validation loss against forward passes and against seconds, a row of panels a race."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from mezo.util.figures import Figure, rc_context


def draw(path: Path, races: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
    """Write an SVG. races: by name, for each method the curves of its seeds; a line is the median, a band the range."""
    with rc_context({"svg.hashsalt": "mezo", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 2.8 * len(races)), layout="constrained")
        panels = figure.subplots(len(races), 2, squeeze=False, sharey="row")
        for (name, methods), (by_passes, by_seconds) in zip(races.items(), panels, strict=True):
            for n, (method, curves) in enumerate(methods.items()):
                color = f"C{n % 10}"
                for panel, of in ((by_passes, "passes"), (by_seconds, "seconds")):
                    points = list(zip(*(getattr(curve, of) for curve in curves), strict=False))
                    losses = list(zip(*(curve.losses for curve in curves), strict=False))
                    x = [median(each) for each in points]
                    panel.plot(x, [median(each) for each in losses], color=color, label=method, linewidth=1.4)
                    panel.fill_between(
                        x,
                        [min(each) for each in losses],
                        [max(each) for each in losses],
                        color=color,
                        alpha=0.15,
                        linewidth=0,
                    )
            by_passes.set_title(name, loc="left")
            by_passes.set_ylabel("validation loss")
            by_passes.set_xlabel("forward passes of a batch")
            by_seconds.set_xlabel("seconds of steps")
            for panel in (by_passes, by_seconds):
                panel.spines[["top", "right"]].set_visible(False)
                panel.grid(alpha=0.25)
            by_seconds.legend(fontsize=7, frameon=False, loc="upper right")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
