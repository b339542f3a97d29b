"""The lines of results.jsonl: what is said of the study, and of each of its runs."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mezo.ablation.run import measures
from mezo.ablation.run import results_file as results
from mezo.ablation.run.cases import Run
from mezo.ablation.run.measures import Threshold
from mezo.ablation.run.outcome import read_outcome
from mezo.ablation.run.prepare import Prepared
from mezo.ablation.run.processes import Ended
from mezo.run import RunFolder, read_metrics, to_json


class Journal:
    """Adds to results.jsonl what is not its latest word on the same thing.

    So a study that goes on repeats nothing, and a line is only ever replaced by a later one that says
    something else: of a run, the line of its study, variant and seed.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared, self._path = prepared, prepared.folder.results
        self._said = {_identity(record): record for record in results.read(self._path)}

    def add(self, record: Mapping[str, Any]) -> None:
        """Append `record`, unless the file ends up saying the same without it."""
        plain = json.loads(to_json(dict(record)))
        if self._said.get(_identity(plain)) != plain:
            results.append(self._path, plain)
            self._said[_identity(plain)] = plain

    def begin(self, command: list[str]) -> None:
        """Say what is studied: the plan, its budget, what could not be bound."""
        p = self._prepared
        self.add(
            {
                "kind": "meta",
                "title": p.plan.title,
                "command": command,
                "budget": p.budget,
                "equal": p.options.equal,
                "seeds": p.options.seeds,
                "jobs": len(p.devices),
                "config": p.config.model_dump(mode="json"),
            }
        )
        for study in p.plan.studies:
            self.add(
                {
                    "kind": "study",
                    "name": study.name,
                    "ablated_part": study.ablated_part,
                    "action": study.action,
                    "replacement": study.replacement,
                    "metrics": list(_recorded(p, p.bound.metrics.get(study.name, ()))),
                    "uncomputed": list(p.bound.uncomputed.get(study.name, ())),
                    "notes": {c.label: c.note for c in p.cases if c.study == study.name and c.note},
                    "unbound": [
                        {"text": u.text, "reason": u.reason, "nearest": list(u.nearest)}
                        for u in p.bound.unbound
                        if u.study == study.name
                    ],
                }
            )

    def tell_threshold(self, threshold: Threshold) -> None:
        self.add(
            {
                "kind": "meta",
                "threshold": {
                    "metric": threshold.metric,
                    "value": threshold.value,
                    "source": threshold.source,
                },
            }
        )

    def tell_run(self, run: Run, ended: Ended, threshold: Threshold | None) -> None:
        """A run that has come to its end, with its numbers if that was a good one."""
        folder, done = self._prepared.folder, self._prepared.folder.is_finished(run.key)
        path = folder.run(run.key) if done else folder.failed(run.key)
        numbers, versions, steps = _numbers(path, threshold) if done else ({}, {}, 0)
        self.add(
            {
                "kind": "run",
                "study": run.case.study,
                "variant": run.case.label,
                "settings": dict(run.case.settings),
                "seed": (self._prepared.config.seed + run.number) % 2**64,
                "status": "ok" if done else "failed",
                "error": None if done else ended.error,
                "run": folder.relative(path),
                "steps": steps,
                "metrics": numbers,
                "config": run.config.model_dump(mode="json"),
                "versions": versions,
                "key": run.key,
            }
        )


def threshold_of(prepared: Prepared) -> Threshold | None:
    """What a run is measured against: the value that was given, or what the baseline's runs end at.

    The latter is the mean over its finished seeds of the task's headline metric; None before there is one.
    """
    folder = prepared.folder
    runs = [run for run in prepared.runs if run.case.study is None and folder.is_finished(run.key)]
    evals = [read_metrics(RunFolder(folder.run(run.key)).metrics).evals for run in runs]
    evals = [records for records in evals if records]
    if not evals:
        return None
    headline = measures.curve_metric(evals[0])
    if prepared.options.threshold is not None:
        metric, value = prepared.options.threshold
        return Threshold(metric or headline, value, "given")
    value, count = measures.mean_at_the_end(evals, headline)
    if not math.isfinite(value):
        return None
    return Threshold(headline, value, f"the baseline's mean at the end of its runs, seeds: {count}")


def _recorded(prepared: Prepared, asked: Iterable[str]) -> Iterator[str]:
    """The metrics that were asked for, under the names that runs have them by: ROUGE is of several kinds."""
    for name in asked:
        yield from prepared.rouge if name == "rouge" else (name,)


def _numbers(path: Path, threshold: Threshold | None) -> tuple[dict[str, float], dict[str, str], int]:
    """(metrics, versions, steps made) of a finished run."""
    metrics, outcome = read_metrics(RunFolder(path).metrics), read_outcome(path)
    versions = {**(outcome.versions or {}), "device": outcome.device, "threads": str(outcome.threads)}
    return measures.measure(metrics, outcome, threshold), versions, len(metrics.steps)


def _identity(record: Mapping[str, Any]) -> tuple[Any, ...]:
    kind = record.get("kind")
    if kind == "run":
        return kind, record.get("study"), record.get("variant"), record.get("seed")
    if kind == "meta":  # one of the study, one of its threshold
        return kind, "threshold" in record
    return kind, record.get("name")
