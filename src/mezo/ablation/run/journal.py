"""The records of results.jsonl: of the study, and of each of its runs."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mezo.ablation.run import results_file
from mezo.ablation.run.cases import Run
from mezo.ablation.run.measures import Threshold, curve_metric, mean_at_the_end, measure
from mezo.ablation.run.outcome import read_outcome
from mezo.ablation.run.prepare import PreparedStudy
from mezo.ablation.run.processes import Ended
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.util.json_text import to_json


class Journal:
    """Appends records to results.jsonl, except those that the file already has as the last on their subject.

    So a study that continues repeats nothing. The subject of a run's record is its study, variant and seed.
    """

    def __init__(self, prepared: PreparedStudy) -> None:
        self._prepared, self._path = prepared, prepared.folder.results
        self._last = {_subject(record): record for record in results_file.read(self._path)}

    def add(self, record: Mapping[str, Any]) -> None:
        """Append `record`, unless it repeats the last one on its subject."""
        written = json.loads(to_json(dict(record)))
        if self._last.get(_subject(written)) != written:
            results_file.append(self._path, written)
            self._last[_subject(written)] = written

    def begin(self, command: list[str]) -> None:
        """Add the study: the plan, its budget, what is not bound."""
        p = self._prepared
        meta = {"title": p.plan.title, "command": command, "budget": p.budget, "equal": p.options.equal}
        running = {
            "seeds": p.options.seeds,
            "jobs": len(p.devices),
            "config": p.config.model_dump(mode="json"),
        }
        self.add({"kind": "meta", **meta, **running})
        for study in p.plan.studies:
            asked = p.bound.metrics.get(study.name, ())
            unbound = [item for item in p.bound.unbound if item.study == study.name]
            self.add(
                {
                    "kind": "study",
                    "name": study.name,
                    "ablated_part": study.ablated_part,
                    "action": study.action,
                    "replacement": study.replacement,
                    # ROUGE is of several kinds, and runs have one of them
                    "metrics": [n for name in asked for n in (p.rouge if name == "rouge" else (name,))],
                    "uncomputed": list(p.bound.uncomputed.get(study.name, ())),
                    "notes": {c.label: c.note for c in p.cases if c.study == study.name and c.note},
                    "unbound": [
                        {"text": item.text, "reason": item.reason, "nearest": list(item.nearest)}
                        for item in unbound
                    ],
                }
            )

    def add_threshold(self, threshold: Threshold) -> None:
        self.add({"kind": "meta", "threshold": asdict(threshold)})

    def add_run(self, run: Run, ended: Ended, threshold: Threshold | None) -> None:
        """Add a run that has ended, with its numbers if it is finished."""
        folder, done = self._prepared.folder, self._prepared.folder.is_finished(run.key)
        path = folder.run(run.key) if done else folder.failed(run.key)
        numbers: dict[str, Any] = {"steps": 0, "metrics": {}, "versions": {}}
        if done:
            metrics, outcome = read_metrics(RunFolder(path).metrics), read_outcome(path)
            measured = {"device": outcome.device, "threads": str(outcome.threads)}
            numbers = {
                "steps": len(metrics.steps),
                "metrics": measure(metrics, outcome, threshold),
                "versions": {**(outcome.versions or {}), **measured},
            }
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
                "config": run.config.model_dump(mode="json"),
                "key": run.key,
                **numbers,
            }
        )


def threshold_of(prepared: PreparedStudy) -> Threshold | None:
    """The threshold of the study: the value that was given, or the baseline's at the end of its runs.

    The latter is the mean of the task's headline metric over the finished seeds; None without a finished run.
    """
    folder = prepared.folder
    runs = [run for run in prepared.runs if run.case.study is None and folder.is_finished(run.key)]
    evals = [read_metrics(RunFolder(folder.run(run.key)).metrics).evals for run in runs]
    evals = [records for records in evals if records]
    if not evals:
        return None
    headline = curve_metric(evals[0])
    if prepared.options.threshold is not None:
        metric, value = prepared.options.threshold
        return Threshold(metric or headline, value, "given")
    value, count = mean_at_the_end(evals, headline)
    source = f"the baseline's mean at the end of its runs, seeds: {count}"
    return Threshold(headline, value, source) if math.isfinite(value) else None


def _subject(record: Mapping[str, Any]) -> tuple[Any, ...]:
    kind = record.get("kind")
    if kind == "run":
        return kind, record.get("study"), record.get("variant"), record.get("seed")
    if kind == "meta":  # one of the study, one of its threshold
        return kind, "threshold" in record
    return kind, record.get("name")
