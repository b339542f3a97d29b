"""The plots of a run, from its metrics.jsonl: each as PNG and SVG, and all on one page."""

import io
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mezo.runs.folder import RunFolder
from mezo.runs.judged_on import MARK, Judged, explained, judged_elsewhere
from mezo.runs.metrics_file import Metrics, read_metrics
from mezo.util.atomic_files import replacing
from mezo.util.figures import Axes, Figure, MaxNLocator, rc_context

# Okabe and Ito's palette: distinct for colour-blind readers, and in grey.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#9AA5B1"
_SPREAD = ("mean", "std", "min", "max")
_COLORS = (_BLUE, _ORANGE, _GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@dataclass(frozen=True, slots=True)
class Curves:
    """A run as arrays: S steps, one row of G an n-SPSA direction; E evaluations of one split."""

    step: np.ndarray  # (S,) 1-based: updates done after this step
    loss: np.ndarray  # (S,)
    grad: np.ndarray  # (S,) mean over directions of |projected gradient|, loss per unit of z
    zero: np.ndarray  # (S,) share of the directions whose projected gradient is exactly 0
    eval_step: np.ndarray  # (E,)
    eval_loss: np.ndarray  # (E,)
    metric: str  # what the task is judged by
    score: np.ndarray  # (E,) of the metric, shares in per cent; NaN where the task has none
    standard_error: np.ndarray  # (E,) of an accuracy, binomial; of other metrics it is not known: 0
    split: str
    judged: Judged  # the examples behind the last evaluation
    rewards: (
        np.ndarray
    )  # (4, S) mean, standard deviation, least and largest of a step's population; NaN without one

    @property
    def has_rewards(self) -> bool:
        return bool(np.isfinite(self.rewards).any())

    @property
    def score_title(self) -> str:
        return f"{self.metric[:1].upper()}{self.metric[1:]} on {self.split}"

    @property
    def score_label(self) -> str:
        if ":" in self.metric:  # a custom reward
            return self.metric
        return f"{self.metric} (%{', bar: ± 1 standard error' if self.metric == 'accuracy' else ''})"


def curves(metrics: Metrics) -> Curves:
    """The arrays behind the plots. Evaluations: of the split that was evaluated most."""
    steps = metrics.steps
    splits = [e.split for e in metrics.evals]
    split = max(splits, key=splits.count, default="validation")
    evals = [e for e in metrics.evals if e.split == split]
    heads = [e.headline for e in evals]
    metric = next((h.name for h in heads if h), "accuracy")
    score = np.array([np.nan if h is None else h.value for h in heads], dtype=float)
    examples = np.array([max(e.examples, 1) for e in evals], dtype=float)
    error = np.sqrt(score * (1 - score) / examples) if metric == "accuracy" else np.zeros_like(score)
    unit = 1 if ":" in metric else 100
    return Curves(
        step=np.array([s.step + 1 for s in steps], dtype=int),
        loss=np.array([s.loss for s in steps], dtype=float),
        grad=np.array([np.mean(np.abs(s.projected_grads)) for s in steps], dtype=float),
        zero=np.array([np.mean([g == 0 for g in s.projected_grads]) for s in steps], dtype=float),
        eval_step=np.array([e.step for e in evals], dtype=int),
        eval_loss=np.array([e.loss for e in evals], dtype=float),
        metric=metric,
        score=unit * score,
        standard_error=unit * error,
        split=split,
        rewards=np.array(
            [[(s.rewards or {}).get(name, np.nan) for s in steps] for name in _SPREAD], dtype=float
        ),
        judged=Judged(evals[-1].examples, evals[-1].examples_fingerprint) if evals else Judged(),
    )


def window_for(num_steps: int) -> int:
    """Steps a running mean covers: a twentieth of the run, at least 5, at most 500; 1 where there is nothing to average."""
    return min(max(num_steps // 20, 5), 500) if num_steps >= 10 else 1


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """(S,) -> (S,) mean of the last `window` values, NaN until there are so many; NaN values are left out of it."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    count = counts[ends] - counts[starts]
    return np.where(
        (ends >= window) & (count > 0), (sums[ends] - sums[starts]) / np.maximum(count, 1), np.nan
    )


def write_plots(run: RunFolder | Path | str) -> list[Path]:
    """Draw plots/{loss,METRIC,gradient,zero_gradients,overview}.{png,svg}; the paths written.

    The spread of a population's rewards is a band behind the rewards of evaluations, and a plot of its own, rewards, where
    the metric is something else. No plot of a metric without evaluations, none at all without a finished step. Raises MezoError for unreadable
    metrics.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    metrics = read_metrics(folder.metrics)
    if not metrics.steps:
        return []
    data = curves(metrics)
    folder.plots.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, draw in _panels(data).items():
        figure = Figure(figsize=(7.0, 4.2), layout="constrained")
        draw(figure.subplots(), data)
        written += save(figure, folder.plots / name)
    return written + save(_overview(data), folder.plots / "overview")


def overview_png(metrics: Metrics) -> bytes | None:
    """All plots of a run on one page, as a PNG file has it; None without a finished step."""
    return _encoded(_overview(curves(metrics)), "png", 80) if metrics.steps else None


def _panels(data: Curves) -> dict[str, Callable[[Axes, Curves], None]]:
    """By the names of their files. None of a metric without evaluations."""
    score = {re.sub(r"\W+", "-", data.metric): _score} if np.isfinite(data.score).any() else {}
    rewards = {"rewards": _rewards} if data.has_rewards and not (score and ":" in data.metric) else {}
    return {"loss": _loss, **score, **rewards, "gradient": _gradient, "zero_gradients": _zero_gradients}


def _overview(data: Curves) -> Figure:
    panels = _panels(data)
    names = list(panels)
    # Of an odd number of panels the first, the loss, goes over both columns.
    cells = names if len(names) % 2 == 0 else names[:1] + names
    rows: list[Any] = [cells[n : n + 2] for n in range(0, len(cells), 2)]
    figure = Figure(figsize=(12.0, 3.8 * len(rows)), layout="constrained")
    for name, axis in figure.subplot_mosaic(rows).items():
        panels[name](axis, data)
    return figure


def write_comparison(runs: Mapping[str, RunFolder], stem: Path) -> list[Path]:
    """Draw validation loss and metric of several runs, by their names, into STEM.png and STEM.svg.

    Runs without an evaluation are left out; nothing is written if none has any.
    """
    all_curves = {name: curves(read_metrics(run.metrics)) for name, run in runs.items()}
    evaluated = {name: data for name, data in all_curves.items() if len(data.eval_step)}
    if not evaluated:
        return []
    judged = any(np.isfinite(data.score).any() for data in evaluated.values())
    last = max(int(data.eval_step[-1]) for data in evaluated.values())
    marked = sorted(judged_elsewhere({name: data.judged for name, data in evaluated.items()}))
    figure = Figure(figsize=(12.0 if judged else 7.0, 4.6), layout="constrained")
    axes = figure.subplots(1, 1 + judged, squeeze=False).ravel()
    for n, (name, data) in enumerate(evaluated.items()):
        look: dict[str, Any] = dict(color=_COLORS[n % len(_COLORS)], linewidth=1.8, marker="o", markersize=4)
        axes[0].plot(
            data.eval_step, data.eval_loss, label=f"{name} {MARK}" if name in marked else name, **look
        )
        if judged:
            # Each run a little to the side of the one before, so that error bars do not hide each other.
            aside = 0.01 * last * (n - (len(evaluated) - 1) / 2)
            axes[1].errorbar(data.eval_step + aside, data.score, data.standard_error, capsize=3, **look)
    first = next(iter(evaluated.values()))
    dress(axes[0], f"Loss on {first.split}", "loss")
    if judged:
        dress(axes[1], first.score_title, first.score_label)
    _share_steps(axes, last)
    if marked:
        figure.supxlabel(textwrap.fill(explained(marked), 100 if judged else 64), fontsize="small")
    figure.legend(loc="outside upper right", ncols=4 if judged else 2, frameon=False)
    stem.parent.mkdir(parents=True, exist_ok=True)
    return save(figure, stem)


def _loss(axis: Axes, data: Curves) -> None:
    window = window_for(len(data.step))
    if window > 1:
        axis.plot(data.step, data.loss, color=_GREY, linewidth=0.7, alpha=0.7, label="each step")
    _mean_line(axis, data.step, running_mean(data.loss, window), window, _BLUE)
    dress(axis, "Training loss", "loss (mean of a step's probes)")
    _finish(axis, data)


def _rewards(axis: Axes, data: Curves) -> None:
    """The rewards of a step's population: mean, a standard deviation to both sides, and from the least to the largest."""
    window = window_for(len(data.step))
    mean, std, least, most = (running_mean(row, window) for row in data.rewards)
    axis.fill_between(data.step, least, most, color=_BLUE, alpha=0.12, linewidth=0, label="least to largest")
    axis.fill_between(
        data.step,
        mean - std,
        mean + std,
        color=_BLUE,
        alpha=0.25,
        linewidth=0,
        label="± 1 standard deviation",
    )
    _mean_line(axis, data.step, mean, window, _BLUE, label=False)
    dress(axis, "Rewards of the population" + (f", mean of {window} steps" if window > 1 else ""), "reward")
    _finish(axis, data)


def _score(axis: Axes, data: Curves) -> None:
    score, error, look = data.score, data.standard_error, {}
    if data.has_rewards and ":" in data.metric:
        _rewards(axis, data)
        look = {"label": "evaluated at θ"}
    line: dict[str, Any] = dict(color=_GREEN, linewidth=1.8, marker="o", markersize=4, capsize=3, **look)
    axis.errorbar(data.eval_step, score, yerr=error, **line)
    known = np.flatnonzero(np.isfinite(score))
    for i, to_the in {known[0]: "right", known[-1]: "left"}.items():  # beside the line's ends, never on it
        axis.annotate(
            f"{score[i]:.3g}" if ":" in data.metric else f"{score[i]:.1f} %",
            (data.eval_step[i], score[i]),
            xytext=(-7 if to_the == "right" else 7, 0),
            textcoords="offset points",
            ha=to_the,
            va="center",
        )
    axis.margins(y=0.1)
    dress(axis, data.score_title, data.score_label)
    _finish(axis, data)


def _gradient(axis: Axes, data: Curves) -> None:
    window = window_for(len(data.step))
    mean = running_mean(data.grad, window)
    shown = data.grad
    if np.any(shown > 0):
        axis.set_yscale("log")  # zeros have no logarithm: they are counted in the plot beside this one
        shown, mean = np.where(shown > 0, shown, np.nan), np.where(mean > 0, mean, np.nan)
    if window > 1:
        axis.plot(data.step, shown, ".", color=_GREY, markersize=2.5, alpha=0.7, label="each step")
    _mean_line(axis, data.step, mean, window, _ORANGE)
    dress(axis, "Projected gradient", "|projected gradient| (loss per unit of z)")
    _finish(axis, data)


def _zero_gradients(axis: Axes, data: Curves) -> None:
    window = window_for(len(data.step))
    _mean_line(axis, data.step, 100 * running_mean(data.zero, window), window, _BLUE, label=False)
    axis.set_ylim(-4, 104)
    total = 100 * float(np.mean(data.zero))
    dress(
        axis,
        f"Zero gradients: {total:.1f} % of all",
        f"share of the last {window} steps (%)" if window > 1 else "share of its directions (%)",
    )
    _finish(axis, data)


def _mean_line(
    axis: Axes, step: np.ndarray, mean: np.ndarray, window: int, color: str, *, label: bool = True
) -> None:
    """A running mean, or in a short run the points themselves."""
    look: dict[str, Any] = dict(color=color, linewidth=1.8)
    if window == 1:
        look |= dict(marker="o", markersize=4)
    elif label:
        look["label"] = f"mean of the last {window} steps"
    axis.plot(step, mean, **look)


def _finish(axis: Axes, data: Curves) -> None:
    """The same steps in every panel, and a legend above it, where no line is."""
    _share_steps([axis], int(data.step[-1]))
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.99), ncols=2, borderaxespad=0)


def _share_steps(axes: Iterable[Axes], last: int) -> None:
    room = 0.16 * max(last, 1)  # for the values beside the ends of a line
    for axis in axes:
        axis.set_xlim(-room, last + room)
        axis.set_xticks([t for t in MaxNLocator(8, integer=True).tick_values(0, last) if 0 <= t <= last])


def dress(axis: Axes, title: str, ylabel: str) -> None:
    """Titles and grid, as all pictures have them; steps go to the right."""
    axis.set_title(title, loc="left", fontweight="bold")
    axis.set_xlabel("step (updates done)")
    axis.set_ylabel(ylabel)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(True, color="#E4E7EB", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png and .svg, and return them."""
    written = []
    for kind in _METADATA:
        path = stem.with_suffix(f".{kind}")
        with replacing(path) as temporary:
            temporary.write_bytes(_encoded(figure, kind, 150))
        written.append(path)
    return written


# Without a date, a version and random ids, the same run gives the same file.
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def _encoded(figure: Figure, kind: str, dpi: int) -> bytes:
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "mezo"}):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=_METADATA[kind])
    return buffer.getvalue()
