"""The loss, the accuracy and the task's metrics of a model on a set of examples, at theta."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mezo.engines.base import Engine
from mezo.errors import MezoError
from mezo.events import EvalRecord
from mezo.metrics import Metric, TextMetric, metric_named
from mezo.metrics.accuracy import ACCURACY
from mezo.metrics.preference import preferred
from mezo.objectives import LogprobObjective, Objective, OutputObjective, PreferenceObjective, reported
from mezo.runs.judged_on import rows_fingerprint
from mezo.scoring import Example, candidate_scores, pose, predictions
from mezo.util.clock import since

_CHUNK = 64  # examples scored in one call


@dataclass
class ModelAnswers:
    """What a model answered, an entry an example.

    Args:
        choices: the candidate that it chose; empty where there is no choice.
        outputs: what it wrote; empty where no metric reads that.
        scores: of each candidate, its mean log-probability; empty where there is no choice.
        writes: whether outputs are wanted, whatever metrics read.
    """

    choices: list[int] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    writes: bool = False


def evaluate(
    engine: Engine,
    examples: Sequence[Example],
    objective: Objective,
    *,
    has_candidates: bool,
    metrics: Sequence[str] | None = None,
    step: int = 0,
    split: str = "validation",
    answers: ModelAnswers | None = None,
) -> EvalRecord:
    """Score every example at theta, 64 at a time, sorted by length.

    Args:
        engine, examples: of the model; to score.
        objective: its loss is reported, or the cross-entropy in its place (`objectives.reported`). An objective that reads
            outputs is also reported as a metric, and as the loss where a row has no answer.
        has_candidates: whether the task is a choice between candidates.
        metrics: the task's, by name; None for accuracy where there are candidates.
        step, split: for the record.
        answers: filled with what the model chose and wrote.

    Raises MezoError if a metric is unknown, or not available for these examples.
    """
    began = time.monotonic()
    names = metrics if metrics is not None else ("accuracy",) if has_candidates else ()
    wanted = [metric_named(name) for name in names]
    _check(wanted, has_candidates)
    answered = all(example.candidates for example in examples) or not isinstance(objective, OutputObjective)
    loss, choices, scores, margins = (
        _scored(engine, examples, reported(objective), has_candidates) if answered else (0.0, [], [], [])
    )
    writes = isinstance(objective, OutputObjective) or any(isinstance(m, TextMetric) for m in wanted)
    writes = writes or (answers is not None and answers.writes)
    outputs = engine.generate(examples) if writes else []
    if answers is not None:
        answers.choices, answers.outputs, answers.scores = choices, list(outputs), scores
    values = {
        m.name: m.of(examples, outputs) if isinstance(m, TextMetric) else m.of(examples, choices)
        for m in wanted
    }
    if margins:
        values = {**preferred(margins), **values}
    if isinstance(objective, OutputObjective) and objective.metric not in values:
        values[objective.metric] = -objective(examples, outputs)
    if isinstance(objective, OutputObjective) and not answered:
        loss = -values[objective.metric]
    return EvalRecord(
        step=step,
        split=split,
        accuracy=ACCURACY.of(examples, choices) if has_candidates else None,
        loss=loss,
        examples=len(examples),
        seconds=since(began),
        metrics=values,
        examples_fingerprint=rows_fingerprint(example.fields for example in examples),
    )


def _check(metrics: Sequence[Metric], has_candidates: bool) -> None:
    for metric in metrics:
        if not (has_candidates or isinstance(metric, TextMetric)):
            raise MezoError(
                f"metric {metric.name!r} judges a choice between candidates, and this task has none to choose from"
            )


def _scored(
    engine: Engine, examples: Sequence[Example], loss: LogprobObjective, has_candidates: bool
) -> tuple[float, list[int], list[list[float]], list[float]]:
    """The loss, and where there is a choice the candidate chosen for each example, and the scores of its candidates.

    And of a loss of preferences, by how much each example's chosen answer is ahead.
    """
    total, weights, choices = 0.0, 0, [0] * len(examples)
    scores: list[list[float]] = [[] for _ in examples]
    margins: list[float] = []
    parts = in_chunks(examples)
    chunks = [[examples[i] for i in members] for members in parts]
    all_posed = [pose(chunk, answers_only=not has_candidates) for chunk in chunks]
    scored = zip(parts, chunks, all_posed, engine.logprobs_each(all_posed), strict=True)
    for members, chunk, posed, (logprobs,) in scored:
        if has_candidates:
            for i, choice in zip(members, predictions(posed, logprobs), strict=True):
                choices[i] = int(choice)
            for number, score in zip(posed.candidate_example, candidate_scores(posed, logprobs), strict=True):
                scores[members[number]].append(float(score))
        if isinstance(loss, PreferenceObjective):
            pairs = loss.rewards(posed, logprobs)
            margins += (pairs.chosen - pairs.rejected).tolist()
        if loss.answers_only and has_candidates:
            logprobs = logprobs[posed.candidate_is_answer[posed.query_candidate]]
            posed = pose(chunk, answers_only=True)
        weight = len(logprobs) if loss.answers_only else len(chunk)  # a mean over tokens, or over examples
        total += loss(posed, logprobs) * weight
        weights += weight
    return total / weights, choices if has_candidates else [], scores if has_candidates else [], margins


def in_chunks(examples: Sequence[Example]) -> list[list[int]]:
    """The places of the examples that are scored in one call, so that all who ask of the same examples get the same bits."""
    order = sorted(range(len(examples)), key=lambda i: (len(examples[i].prompt), i))
    return [order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK)]
