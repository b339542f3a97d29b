"""Accuracy and loss of a model on a set of examples, at theta."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from mezo.engines.base import Engine
from mezo.events import EvalRecord
from mezo.objectives import Objective
from mezo.scoring import Example, pose, predictions

_CHUNK = 64  # examples scored in one call


def evaluate(
    engine: Engine,
    examples: Sequence[Example],
    loss: Objective,
    *,
    has_candidates: bool,
    step: int = 0,
    split: str = "validation",
) -> EvalRecord:
    """Score every example at theta, 64 at a time, in an order that puts like lengths together."""
    began = time.monotonic()
    order = sorted(range(len(examples)), key=lambda i: (len(examples[i].prompt), i))
    right, total = 0, 0.0
    for start in range(0, len(order), _CHUNK):
        chunk = [examples[i] for i in order[start : start + _CHUNK]]
        posed = pose(chunk, answers_only=not has_candidates)
        logprobs = engine.logprobs(posed)[0]
        weight = np.sum([len(e.candidates[e.answer]) for e in chunk]) if loss.answers_only else len(chunk)
        total += _loss_of(loss, posed, logprobs, chunk, has_candidates) * float(weight)
        if has_candidates:
            right += int(np.sum(predictions(posed, logprobs) == [e.answer for e in chunk]))
    tokens = sum(len(e.candidates[e.answer]) for e in examples) if loss.answers_only else len(examples)
    return EvalRecord(
        step=step,
        split=split,
        accuracy=right / len(examples) if has_candidates else None,
        loss=total / tokens,
        examples=len(examples),
        seconds=time.monotonic() - began,
    )


def _loss_of(
    loss: Any, posed: Any, logprobs: np.ndarray, chunk: Sequence[Example], has_candidates: bool
) -> float:
    if not (loss.answers_only and has_candidates):
        return loss(posed, logprobs)
    wanted = posed.candidate_is_answer[posed.query_candidate]
    return loss(pose(chunk, answers_only=True), logprobs[wanted])
