"""Metrics by a function in the manner of transformers: `compute_metrics(EvalPrediction) -> numbers by name`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mezo.errors import MezoError
from mezo.events import EvalRecord
from mezo.scoring import Example
from mezo.training.evaluation import ModelAnswers

ComputeMetrics = Callable[[Any], Mapping[str, Any]]


def with_computed(
    record: EvalRecord, compute_metrics: ComputeMetrics, examples: Sequence[Example], answers: ModelAnswers
) -> EvalRecord:
    """The record of an evaluation with what `compute_metrics` makes of it.

    It is called with a `transformers.EvalPrediction`. Where there is a choice, `predictions` is an array of the candidates'
    scores, one row an example (-inf where one has fewer), and `label_ids` are the places of the right ones; otherwise they
    are lists of the written texts and of the accepted answers.

    Raises MezoError if it returns anything but finite numbers by name.
    """
    from transformers import EvalPrediction

    predictions: Any = answers.outputs
    label_ids: Any = [list(e.references) for e in examples]
    if answers.scores:
        predictions = np.full((len(answers.scores), max(map(len, answers.scores))), -np.inf)
        for row, scores in zip(predictions, answers.scores, strict=True):
            row[: len(scores)] = scores
        label_ids = np.array([e.answer for e in examples])
    values = compute_metrics(EvalPrediction(predictions, label_ids))
    if not isinstance(values, Mapping):
        raise MezoError(f"compute_metrics: expected a dict of numbers by name, found {values!r:.200}")
    for name, value in values.items():
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise MezoError(f"compute_metrics: expected a finite number as {name!r}, found {value!r:.200}")
    found = {str(name): float(value) for name, value in values.items()}
    return replace(record, metrics={**record.metrics, **found})
