"""Runs and baselines side by side: one line each, from what they left on disk."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import EvalRecord
from mezo.runs.folder import RunFolder
from mezo.runs.judged_on import MARK, Judged, explained, judged_elsewhere
from mezo.runs.metrics_file import read_metrics
from mezo.runs.summary import read_summary
from mezo.util.escaping import markdown_text
from mezo.util.parsing import parse_json

COLUMNS = ("run", "task", "method", "metric", "start", "end", "best", "steps", "minutes", "peak GiB")


@dataclass(frozen=True, slots=True)
class MethodLine:
    """One run. Scores are those of the task's headline metric on the split it was judged on."""

    name: str
    task: str
    method: str
    metric: str  # "loss" where the task has nothing else: then the best is the smallest
    start: float | None  # before the first step; None for what has no before
    end: float | None
    best: float | None
    steps: int
    seconds: float
    peak_memory_bytes: int | None  # None: not recorded
    examples: int | None = None  # that it was judged on
    examples_fingerprint: str | None = None  # of their raw rows
    elsewhere: bool = False  # on other examples than the other runs of the task

    def cells(self) -> tuple[str, ...]:
        """One text for each of `COLUMNS`."""
        scores = [_shown(x, self.metric) for x in (self.start, self.end, self.best)]
        peak = "-" if not self.peak_memory_bytes else f"{self.peak_memory_bytes / 2**30:.2f}"
        minutes = f"{self.seconds / 60:.1f}"
        name = f"{self.name} {MARK}" if self.elsewhere else self.name
        return (name, self.task, self.method, self.metric, *scores, f"{self.steps:,}", minutes, peak)


def compare(places: Sequence[Path | str]) -> list[MethodLine]:
    """A line for each place: the folder of a run or a baseline, or a file that `mezo eval --json` printed.

    Raises MezoError for anything else.
    """
    paths = [Path(place) for place in places]
    names = [p.resolve().name for p in paths]
    shown = names if len(set(names)) == len(names) else [str(p) for p in paths]
    lines = [_of_file(p, n) if p.is_file() else _of_run(p, n) for p, n in zip(paths, shown, strict=True)]
    tasks: dict[str, dict[str, Judged]] = {}
    for line in lines:
        tasks.setdefault(line.task, {})[line.name] = Judged(line.examples, line.examples_fingerprint)
    others = {task: judged_elsewhere(judged) for task, judged in tasks.items()}
    return [replace(line, elsewhere=line.name in others[line.task]) for line in lines]


def footnote(lines: Sequence[MethodLine]) -> str | None:
    """What the marks in a table say; None without any."""
    marked = [line.name for line in lines if line.elsewhere]
    return explained(marked) if marked else None


def markdown(lines: Sequence[MethodLine]) -> str:
    """The table as a page has it."""
    rows = [
        COLUMNS,
        ("---",) * len(COLUMNS),
        *([markdown_text(cell) for cell in line.cells()] for line in lines),
    ]
    note = footnote(lines)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n{markdown_text(note)}" if note else table


def _of_run(path: Path, name: str) -> MethodLine:
    run = RunFolder.open(path)
    config, metrics, summary = MeZOConfig.read(run.config), read_metrics(run.metrics), read_summary(run.path)
    splits = [e.split for e in metrics.evals]
    split = max(splits, key=splits.count, default="")
    evals = [e for e in metrics.evals if e.split == split]
    metric = _headline(evals)
    scores = [x for e in evals if (x := _score(e, metric)) is not None and math.isfinite(x)]
    best = min if metric == "loss" else max
    spent = math.fsum(s.seconds for s in metrics.steps) + math.fsum(e.seconds for e in metrics.evals)
    return MethodLine(
        name=name,
        task=config.task,
        method=summary.method if summary else f"MeZO {config.tuning}",
        metric=metric,
        start=scores[0] if metrics.steps and scores else None,
        end=scores[-1] if scores else None,
        best=best(scores) if scores else None,
        steps=metrics.steps[-1].step + 1 if metrics.steps else 0,
        seconds=summary.seconds if summary else spent,
        peak_memory_bytes=summary.peak_memory_bytes if summary else None,
        examples=evals[-1].examples if evals else None,
        examples_fingerprint=evals[-1].examples_fingerprint if evals else None,
    )


def _of_file(path: Path, name: str) -> MethodLine:
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        metrics = values.get("metrics") or {"accuracy": values["accuracy"]}
        metric = next((m for m, value in metrics.items() if value is not None), "loss")
        score = metrics.get(metric, values["loss"])
        score = None if score is None else float(score)
        shots, peak = int(values.get("shots", 0)), values.get("peak_memory_bytes")
        method = f"{shots}-shot" if shots else "zero-shot"
        if values.get("adapter"):
            method += " with adapter"
        return MethodLine(
            Path(name).stem, str(values["task"]), str(values.get("method", method)), metric,
            None, score, score, 0, float(values["seconds"]), None if peak is None else int(peak),
            int(values["examples"]) if "examples" in values else None, _text(values.get("examples_fingerprint")),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise MezoError(
            f"{path}: expected what `mezo eval --json` prints, or the folder of a run; found something else"
            f" ({type(error).__name__}: {error})"
        ) from None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _headline(evals: Sequence[EvalRecord]) -> str:
    """The first of the task's metrics; accuracy or loss where a record names none (older runs)."""
    for record in evals:
        if record.metrics:
            return next(iter(record.metrics))
    return "accuracy" if any(e.accuracy is not None for e in evals) else "loss"


def _score(record: EvalRecord, metric: str) -> float | None:
    if metric in record.metrics:
        return record.metrics[metric]
    return record.loss if metric == "loss" else record.accuracy if metric == "accuracy" else None


def _shown(value: float | None, metric: str) -> str:
    """Percent for metrics, which go from 0 to 1; not for a loss, or a custom reward (module:function)."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if metric == "loss" or ":" in metric else f"{100 * value:.1f} %"
