"""OUT/results.jsonl: the records of a study and of each of its runs, appended and never changed.

A line is synced to the disk as soon as it is written. A crash leaves at most a part of a line without a newline: readers
drop it, and the next append cuts it off.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mezo.ablation.run.cases import Run
from mezo.ablation.run.measures import Threshold, curve_metric, mean_at_the_end, measure, read_outcome
from mezo.ablation.run.prepare import PreparedStudy
from mezo.data.from_config import task_of
from mezo.errors import MezoError
from mezo.util.atomic_files import write_all
from mezo.util.json_text import to_json


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a record as the last line. Raises MezoError if it cannot be written whole."""
    try:
        with path.open("ab+", buffering=0) as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            write_all(file, (to_json(record) + "\n").encode())
            os.fsync(file.fileno())
    except OSError as error:
        raise MezoError(f"{path}: cannot add a result: {error}; free some space and start again") from None


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines in their order; none without a file.

    Raises MezoError, naming the line, if one is not a JSON object.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MezoError(f"{path}: cannot read the results: {error.strerror}") from None
    records = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            shown = line[:40].decode(errors="replace")
            raise MezoError(f"{path}:{number}: expected a JSON object, found {shown!r}; remove the line")
        records.append(record)
    return records


class Journal:
    """Appends records, except those that the file already has as the last on their subject.

    So a study that continues repeats nothing. The subject of a run's record is its study, variant and seed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = {_subject(record): record for record in read(path)}

    def add(self, record: dict[str, Any]) -> None:
        written = json.loads(to_json(record))
        if self._last.get(_subject(written)) != written:
            append(self._path, written)
            self._last[_subject(written)] = written


def study_records(p: PreparedStudy, command: list[str]) -> Iterator[dict[str, Any]]:
    """The plan, its budget, what is not bound."""
    meta = {"title": p.plan.title, "command": command, "budget": p.budget, "equal": p.options.equal}
    config = p.config.model_dump(mode="json")
    own = task_of(p.config).metrics
    rouge = [name for name in (*own, *p.metrics) if name.startswith("rouge")]
    yield {"kind": "meta", **meta, "seeds": p.options.seeds, "jobs": len(p.devices), "config": config}
    for study in p.plan.studies:
        asked = p.bound.metrics.get(study.name, ())
        unbound = [item for item in p.bound.unbound if item.study == study.name]
        yield {
            "kind": "study",
            "name": study.name,
            "ablated_part": study.ablated_part,
            "action": study.action,
            "replacement": study.replacement,
            # ROUGE is of several kinds, and runs have one of them
            "metrics": [n for name in asked for n in (rouge if name == "rouge" else (name,))],
            "uncomputed": list(p.bound.uncomputed.get(study.name, ())),
            "notes": {c.label: c.note for c in p.cases if c.study == study.name and c.note},
            "unbound": [{"text": u.text, "reason": u.reason, "nearest": list(u.nearest)} for u in unbound],
        }


def run_record(p: PreparedStudy, run: Run, error: str | None, threshold: Threshold | None) -> dict[str, Any]:
    """A run that has ended, with its numbers if it is finished. error: why it is not."""
    folder, done = p.folder, p.folder.is_finished(run.key)
    path = folder.run(run.key) if done else folder.failed(run.key)
    numbers: dict[str, Any] = {"steps": 0, "metrics": {}, "versions": {}}
    if done:
        metrics, outcome = folder.metrics(run.key), read_outcome(path)
        numbers = {
            "steps": len(metrics.steps),
            "metrics": measure(metrics, outcome, threshold),
            "versions": {**outcome.versions, "device": outcome.device, "threads": str(outcome.threads)},
        }
    return {
        "kind": "run",
        "study": run.case.study,
        "variant": run.case.label,
        "settings": dict(run.case.settings),
        "seed": (p.config.seed + run.number) % 2**64,
        "status": "ok" if done else "failed",
        "error": None if done else error,
        "run": path.relative_to(folder.path).as_posix(),
        "config": run.config.model_dump(mode="json"),
        "key": run.key,
        **numbers,
    }


def threshold_of(prepared: PreparedStudy) -> Threshold | None:
    """The threshold of the study: the value that was given, or the baseline's at the end of its runs.

    The latter is the mean of the task's headline metric over the finished seeds; None without a finished run.
    """
    folder = prepared.folder
    runs = [run for run in prepared.runs if run.case.study is None and folder.is_finished(run.key)]
    found = [folder.metrics(run.key).evals for run in runs]
    if not any(found):
        return None
    headline = curve_metric(next(filter(None, found)))
    if prepared.options.threshold is not None:
        metric, value = prepared.options.threshold
        return Threshold(metric or headline, value, "given")
    value, count = mean_at_the_end(found, headline)
    source = f"the baseline's mean at the end of its runs, seeds: {count}"
    return Threshold(headline, value, source) if math.isfinite(value) else None


def _subject(record: Mapping[str, Any]) -> tuple[Any, ...]:
    kind = record.get("kind")
    if kind == "run":
        return kind, record.get("study"), record.get("variant"), record.get("seed")
    if kind == "meta":  # one of the study, one of its threshold
        return kind, "threshold" in record
    return kind, record.get("name")
