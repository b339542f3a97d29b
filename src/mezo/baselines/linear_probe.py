"""Linear probing: logistic regression on a frozen model's features (MeZO, section 3.1, "LP").

The published code fits scikit-learn's regression to the answers' tokens and replaces the head; here the classes are
the candidates, so label words may have several tokens. Both choose the regularisation by cross-validation.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mezo.baselines.probe import LinearProbe
from mezo.build.setup import encode, load_model
from mezo.config import MeZOConfig
from mezo.data.from_config import task_of, training_set, validation_set
from mezo.errors import MezoError
from mezo.events import EvalRecord, Observer
from mezo.metrics import ChoiceMetric, metric_named
from mezo.metrics.accuracy import ACCURACY
from mezo.models.load import LoadedModel
from mezo.runs.folder import RunFolder
from mezo.runs.judged_on import rows_fingerprint
from mezo.runs.metrics_file import MetricsWriter
from mezo.runs.summary import Summary, write_summary
from mezo.scoring import Example
from mezo.tasks import Task
from mezo.util import memory
from mezo.util.atomic_files import replacing, write_text
from mezo.util.clock import since


def write_folder(
    output: Path | str,
    config: MeZOConfig,
    records: Iterable[EvalRecord],
    summary: Summary,
    *,
    overwrite: bool = False,
) -> RunFolder:
    """config.yaml, metrics.jsonl and summary.json of a baseline that takes no steps.

    Raises MezoError if the folder is not available.
    """
    run = RunFolder.create(output, overwrite=overwrite)
    write_text(run.config, config.to_yaml())
    with MetricsWriter(run.metrics) as writer:
        for record in records:
            writer.write(record)
    write_summary(run.path, summary)
    return run


METHOD = "linear probe"


def linear_probe(
    config: MeZOConfig,
    *,
    output: Path | str | None = None,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Fit a linear probe on the config's training examples and judge it on its validation split.

    output: a folder like a run's, with
    metrics.jsonl, config.yaml, summary.json and probe.npz.

    Raises MezoError for a task without candidates, data without a validation split, or one class.
    """
    observer = observer or Observer()
    if output is not None:
        RunFolder.check(output, overwrite=overwrite)
    task = _with_candidates(task_of(config))
    train = training_set(config, task)
    task = _with_candidates(train.task)
    held_out = validation_set(config, task)
    if held_out is None:
        raise MezoError("linear probing needs a validation split: give a folder that has validation.jsonl")
    loaded = load_model(config, observer.on_note)
    known, asked = encode(train, loaded, config), encode(held_out, loaded, config)
    began = time.monotonic()
    probe = LinearProbe(shared=len({e.candidates for e in (*known, *asked)}) == 1)
    observer.on_note(f"features of {len(known)} training examples")
    probe.fit(probe.features(loaded, known), known)
    record = _judged(probe, loaded, asked, task, began)
    summary = Summary(METHOD, since(began), memory.peak_bytes())
    if output is not None:
        run = write_folder(output, config, [record], summary, overwrite=overwrite)
        scale, regression = (step for _, step in probe.classifier.steps)
        with replacing(run.probe) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                mean=scale.mean_,
                scale=scale.scale_,
                coefficients=regression.coef_,
                intercepts=regression.intercept_,
                classes=regression.classes_,
            )
    return {
        "method": METHOD,
        "model": config.model,
        "task": config.task,
        "split": record.split,
        "accuracy": record.accuracy,
        "loss": record.loss,
        "metrics": record.metrics,
        "examples": record.examples,
        "examples_fingerprint": record.examples_fingerprint,
        "train_examples": len(known),
        "strength": probe.strength,
        "seconds": summary.seconds,
        "peak_memory_bytes": summary.peak_memory_bytes,
    }


def _with_candidates(task: Task) -> Task:
    if not task.has_candidates:
        raise MezoError(f"linear probing chooses between candidates, and task {task.name!r} has none")
    return task


def _judged(
    probe: LinearProbe, loaded: LoadedModel, examples: Sequence[Example], task: Task, began: float
) -> EvalRecord:
    logprobs = probe.logprobs(probe.features(loaded, examples), examples)
    choices = [int(np.argmax(row)) for row in logprobs]
    wanted = [metric_named(name) for name in task.metrics]
    metrics = {m.name: float(m.of(examples, choices)) for m in wanted if isinstance(m, ChoiceMetric)}
    pairs = list(zip(logprobs, examples, strict=True))
    return EvalRecord(
        step=0,
        split="validation",
        accuracy=ACCURACY.of(examples, choices),
        loss=-float(np.mean([np.logaddexp.reduce(row[list(e.right)]) for row, e in pairs])),
        examples=len(examples),
        seconds=since(began),
        metrics=metrics,
        examples_fingerprint=rows_fingerprint(example.fields for example in examples),
    )
