"""The content of a report, before it is Markdown or HTML: headings, sentences and cells as plain text."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mezo.ablation.comparison.comparisons import ALWAYS, Comparison, Results, StudyResult
from mezo.ablation.comparison.quantities import quantity
from mezo.ablation.report import claims
from mezo.ablation.report.charts.panels import differences, study_panels
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
_SAME = "equal to the baseline, whose runs these are"
_FACTS = ("model", "task", "tuning", "num_steps", "batch_size", "learning_rate", "epsilon", "dtype")
Cells = tuple[str, ...]


# What the templates show; `document` names its entries.
Document = dict[str, Any]


def document(results: Results, folder: Path) -> Document:
    """The content of the reports of the study in `folder`."""
    examples = _examples(results, folder)
    found = claims.claims(results, examples)
    verdicts = [(heading, [c for c in found if c.verdict == kind]) for kind, heading in _HEADINGS.items()]
    return {
        "title": str(results.meta.get("title") or "Ablation study"),
        "facts": list(_facts(results)),  # (name, value): model, task, budget ...
        "notes": list(claims.notes(results, examples)),  # how the numbers were made
        "verdicts": [(heading, of_kind) for heading, of_kind in verdicts if of_kind],
        "costs": claims.costs(results),
        "missing": claims.missing(results),  # (study, variant, why)
        "unbound": [
            (u["study"], u["text"], u["reason"] + (f" (nearest: {', '.join(near)})" if near else ""))
            for u in results.unbound
            for near in [u.get("nearest")]
        ],
        "sections": [_section(n, s, results, folder) for n, s in enumerate(results.studies, start=1)],
        "differences": differences(results),
        "commands": list(_commands(results)),
        "versions": _versions(results),  # (name, version)
        "runs": _runs(results),  # (study, variant, seed, status, steps, folder)
    }


def _section(number: int, study: StudyResult, results: Results, folder: Path) -> dict[str, Any]:
    wanted = {results.headline.name, *study.asked, *ALWAYS}
    tables = [
        # wanted: asked for by the plan, or always shown; a page can fold the others
        {"heading": q.heading, "rows": [_row(c) for c in study.of_metric(q.name)], "wanted": q.name in wanted}
        for q in study.quantities
    ]
    return {
        "number": number,
        "name": study.name,
        "studied": " ".join(filter(None, (study.action, study.part))) or study.name,
        "asked": study.asked,
        "uncomputed": study.uncomputed,
        "settings": [
            (v.label, settings(v.settings), "; ".join(filter(None, (v.note, _SAME if v.is_baseline else ""))))
            for v in study.variants[1:]
        ],
        "groups": tables,
        "panels": study_panels(study, folder, results.headline),
    }


def _row(c: Comparison) -> Cells:
    value, pair = c.quantity.value, c.paired
    mean, deviation = value(c.spread.mean), value(c.spread.deviation)
    if pair is None:
        return c.variant, str(c.spread.count), mean, deviation, "", "", ""
    between = "none" if pair.interval is None else " to ".join(value(end, sign=True) for end in pair.interval)
    some = f" ({len(pair.seeds)} paired)" if c.spread.count != len(pair.seeds) else ""
    p = "" if c.adjusted is None else claims.p_value(c.adjusted)
    return c.variant, f"{c.spread.count}{some}", mean, deviation, value(pair.mean, sign=True), between, p


def settings(values: Mapping[str, Any]) -> str:
    """`epsilon: 0.001, memory: store`."""
    return ", ".join(f"{name}: {_text(value)}" for name, value in values.items()) or "as the baseline"


def _facts(results: Results) -> Iterator[Cells]:
    """The baseline's settings and the study's budget."""
    configs = [run.config for run in results.runs if run.variant == BASELINE]
    for name in _FACTS:
        if values := dict.fromkeys(_text(config[name]) for config in configs if name in config):
            yield name.replace("_", " "), ", ".join(values)
    if results.meta.get("budget"):
        yield "budget", _text(results.meta["budget"])
    if threshold := results.meta.get("threshold"):
        metric = quantity(threshold["metric"])
        yield "threshold", f"{metric.heading} {metric.value(threshold['value'])}: {threshold['source']}"


def _commands(results: Results) -> Iterator[str]:
    if command := results.meta.get("command"):
        yield shlex.join(command)
    for run in results.runs:
        if run.run and run.status == "ok":
            config, output = shlex.quote(f"{run.run}/config.yaml"), shlex.quote(f"{run.run}-again")
            yield f"mezo train --config {config} --output {output}"


def _versions(results: Results) -> list[Cells]:
    found: dict[str, dict[str, None]] = {}
    for run in results.runs:
        for name, version in run.versions.items():
            found.setdefault(name, {})[_text(version)] = None
    return [(name, ", ".join(values)) for name, values in found.items()]


def _runs(results: Results) -> list[Cells]:
    found: dict[Cells, None] = {}
    for study in results.studies:
        for variant in study.variants:
            name = "all" if variant.label == BASELINE else study.name
            for run in variant.runs:
                found[name, variant.label, str(run.seed), run.status, str(run.steps), run.run or ""] = None
    return list(found)


def _examples(results: Results, folder: Path) -> int | None:
    """The examples in the last evaluation of a baseline run; None if no run folder has them."""
    for run in results.runs:
        path = RunFolder(folder / (run.run or "")).metrics
        if run.variant == BASELINE and run.status == "ok" and path.is_file():
            return next((record.examples for record in reversed(read_metrics(path).evals)), None)
    return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return settings(value)
    return json.dumps(value)
