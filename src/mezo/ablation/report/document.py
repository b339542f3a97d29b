"""The content of a report, before it is Markdown or HTML: headings, sentences and cells as plain text."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezo.ablation.comparison.comparisons import ALWAYS, Comparison, Results, StudyResult, VariantResult
from mezo.ablation.comparison.quantities import quantity
from mezo.ablation.report import claims
from mezo.ablation.report.charts.differences import differences
from mezo.ablation.report.charts.panel import Panel
from mezo.ablation.report.charts.registry import study_panels
from mezo.ablation.run.cases import BASELINE
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics

COLUMNS = ("variant", "seeds", "mean", "s.d.", "difference", "95 % interval", "p, adjusted")
ALONE = (
    "The study; and the training of each run alone (paths from the study's folder). All runs of the study are"
    " evaluated on one draw of examples, that of its first seed."
)
COSTS = "Memory and time: differences that stand"
_HEADINGS: dict[claims.Verdict, str] = {
    "held": "Held: the baseline is better",
    "beaten": "Did not hold: the variant is better",
    "differs": "Differs, with no better side",
    "inconclusive": "Inconclusive at this budget",
    "untested": "No interval, so no finding",
}
_FACTS = ("model", "task", "tuning", "num_steps", "batch_size", "learning_rate", "epsilon", "dtype")
Cells = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MetricTable:
    """The rows of a table in one metric."""

    heading: str
    rows: tuple[Cells, ...]  # a cell for each of COLUMNS
    wanted: bool  # asked for by the plan, or always shown; a page can fold the others


@dataclass(frozen=True, slots=True)
class StudySection:
    number: int
    name: str
    studied: str  # action and part, in the plan's words
    asked: tuple[str, ...]
    uncomputed: tuple[str, ...]
    settings: tuple[Cells, ...]  # variant, settings, how its words were read
    groups: tuple[MetricTable, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Document:
    title: str
    facts: tuple[tuple[str, str], ...]  # model, task, budget ...
    notes: tuple[str, ...]  # how the numbers were made
    verdicts: tuple[tuple[str, tuple[claims.Claim, ...]], ...]  # heading, claims; only those that occur
    costs: tuple[claims.Claim, ...]
    missing: tuple[Cells, ...]  # study, variant, why
    unbound: tuple[Cells, ...]  # study, text, why and the nearest parts
    sections: tuple[StudySection, ...]
    differences: Panel | None
    commands: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    runs: tuple[Cells, ...]  # study, variant, seed, status, steps, folder


def document(results: Results, folder: Path) -> Document:
    """The content of the reports of the study in `folder`."""
    examples = _examples(results, folder)
    found = claims.claims(results, examples)
    verdicts = [(h, tuple(c for c in found if c.verdict == kind)) for kind, h in _HEADINGS.items()]
    jobs = results.meta.get("jobs")
    shared = isinstance(jobs, int) and jobs > 1
    notes = (
        *claims.judged_by(results),
        claims.error_note(results, examples),
        f"{jobs} runs at a time shared the machine: their times include that." if shared else None,
    )
    return Document(
        title=str(results.meta.get("title") or "Ablation study"),
        facts=tuple(_facts(results)),
        notes=tuple(note for note in notes if note),
        verdicts=tuple((heading, of_kind) for heading, of_kind in verdicts if of_kind),
        costs=tuple(claims.costs(results)),
        missing=tuple(claims.missing(results)),
        unbound=tuple(_unbound(item) for item in results.unbound),
        sections=tuple(_section(n, s, results, folder) for n, s in enumerate(results.studies, start=1)),
        differences=differences(results),
        commands=tuple(_commands(results)),
        versions=tuple(_versions(results)),
        runs=tuple(dict.fromkeys(_runs(results))),
    )


def _section(number: int, study: StudyResult, results: Results, folder: Path) -> StudySection:
    wanted = {results.headline.name, *study.asked, *ALWAYS}
    return StudySection(
        number,
        study.name,
        " ".join(part for part in (study.action, study.part) if part) or study.name,
        study.asked,
        study.uncomputed,
        tuple((v.label, settings(v.settings), _note(v)) for v in study.variants[1:]),
        tuple(
            MetricTable(q.heading, tuple(map(_row, study.of_metric(q.name))), q.name in wanted)
            for q in study.quantities
        ),
        tuple(study_panels(study, folder, results.headline)),
    )


def _row(c: Comparison) -> Cells:
    value, pair = c.quantity.value, c.paired
    mean, deviation = value(c.spread.mean), value(c.spread.deviation)
    if pair is None:
        return c.variant, str(c.spread.count), mean, deviation, "", "", ""
    between = "none" if pair.interval is None else " to ".join(value(end, sign=True) for end in pair.interval)
    all_paired = c.spread.count == len(pair.seeds)
    seeds = f"{c.spread.count}" if all_paired else f"{c.spread.count} ({len(pair.seeds)} paired)"
    p = "" if c.adjusted is None else claims.p_value(c.adjusted)
    return c.variant, seeds, mean, deviation, value(pair.mean, sign=True), between, p


def settings(values: Mapping[str, Any]) -> str:
    """`epsilon: 0.001, memory: store`."""
    return ", ".join(f"{name}: {_text(value)}" for name, value in values.items()) or "as the baseline"


def _note(variant: VariantResult) -> str:
    same = "equal to the baseline, whose runs these are" if variant.is_baseline else ""
    return "; ".join(part for part in (variant.note, same) if part)


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    """The baseline's settings and the study's budget."""
    configs = [run.config for run in results.runs if run.config and run.variant == BASELINE]
    for name in _FACTS:
        if values := dict.fromkeys(_text(config[name]) for config in configs if name in config):
            yield name.replace("_", " "), ", ".join(values)
    if results.meta.get("budget"):
        yield "budget", _text(results.meta["budget"])
    threshold = results.meta.get("threshold")
    if isinstance(threshold, Mapping):
        metric, value = quantity(str(threshold.get("metric"))), threshold.get("value")
        shown = metric.value(value) if isinstance(value, int | float) else _text(value)
        yield "threshold", f"{metric.heading} {shown}: {_text(threshold.get('source'))}"


def _commands(results: Results) -> Iterator[str]:
    command = results.meta.get("command")
    if command:
        yield command if isinstance(command, str) else shlex.join(str(word) for word in command)
    for run in results.runs:
        if run.path and run.status == "ok":
            config, output = shlex.quote(f"{run.path}/config.yaml"), shlex.quote(f"{run.path}-again")
            yield f"mezo train --config {config} --output {output}"


def _versions(results: Results) -> list[tuple[str, str]]:
    found: dict[str, dict[str, None]] = {}
    for source in (results.meta.get("versions") or {}, *(run.versions for run in results.runs)):
        for name, version in source.items():
            found.setdefault(str(name), {})[_text(version)] = None
    return [(name, ", ".join(values)) for name, values in found.items()]


def _runs(results: Results) -> Iterator[Cells]:
    for study in results.studies:
        for variant in study.variants:
            for run in variant.runs:
                name = "all" if run.variant == BASELINE else study.name
                yield name, variant.label, str(run.seed), run.status, str(run.steps), run.path or ""


def _unbound(item: Mapping[str, Any]) -> Cells:
    near = item.get("nearest") or ()
    near = near if isinstance(near, str) else ", ".join(str(part) for part in near)
    reason = str(item.get("reason") or "no setting of this package stands for it")
    why = f"{reason} (nearest: {near})" if near else reason
    return str(item.get("study") or ""), str(item.get("text") or ""), why


def _examples(results: Results, folder: Path) -> int | None:
    """The examples in the last evaluation of a baseline run; None if no run folder has them."""
    for run in results.runs:
        if run.variant == BASELINE and run.status == "ok" and run.path:
            path = RunFolder(folder / run.path).metrics
            evals = read_metrics(path).evals if path.is_file() else []
            if evals:
                return evals[-1].examples
    return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(inner)}" for name, inner in value.items())
    return json.dumps(value, default=str)
