"""A child process of `python -m benchmarks memory`: runs one case and prints its peak memory."""

import json
import sys
from collections.abc import Callable

import torch

from benchmarks.memory import BASE, PASSAGES, Case
from benchmarks.modes import WAYS, Way
from benchmarks.passages import examples_for
from benchmarks.reference import Padded, reference_step
from benchmarks.text import stream
from benchmarks.timing import threads
from benchmarks.workload import Tuned, a_direction_a_row, model_for, pad_of, tuned
from mezo.algorithm import draw_of, mezo_step
from mezo.errors import MezoError
from mezo.estimators import TwoPoint
from mezo.models.load import LoadedModel
from mezo.objectives import OBJECTIVES
from mezo.scoring import Example
from mezo.util import memory

STEPS = 2  # memory that only the second step needs counts too
EPSILON, LEARNING_RATE = 1e-3, 1e-6


def peak_of(case: Case) -> tuple[int, str]:
    """Peak memory in bytes since the model was loaded, and a description of the batch."""
    loaded = model_for(case.model, case.dtype)
    batch, objective, made_of = _batch(case, loaded)
    forget_peak()
    with threads(case.threads):
        step = _plain(loaded, batch, objective, case.case) if case.case in (BASE, "loss") else None
        noise = "rank-one" if case.case == "rows" else "gaussian"
        step = step or _tuning(tuned(loaded, case.tuning, noise), loaded, batch, objective, case)
        for number in range(STEPS):
            step(number)
        return peak_since(), made_of


def _batch(case: Case, loaded: LoadedModel) -> tuple[list[Example], str, str]:
    """The examples, the objective, and a description of the examples."""
    if case.batch in PASSAGES:
        batch, made_of = examples_for(
            case.batch, loaded, data=case.data, batch_size=case.batch_size, max_length=1024, seed=case.seed
        )
        return batch, "candidate-ce", f"{case.batch}, {made_of}"
    batches = stream(
        case.batch, loaded, data=case.data, batch_size=case.batch_size or 16, length=64, seed=case.seed
    )
    return batches.batch(0), batches.objective, batches.name


def _plain(loaded: LoadedModel, batch: list[Example], objective: str, case: str) -> Callable[[int], object]:
    padded = Padded(batch, OBJECTIVES[objective], pad_of(loaded))

    def forward(number: int) -> None:
        with torch.no_grad():
            _ = padded.logits(loaded.model) if case == BASE else padded.loss(loaded.model)

    return forward


def _tuning(
    model: Tuned, loaded: LoadedModel, batch: list[Example], objective: str, case: Case
) -> Callable[[int], object]:
    if case.case == "loaded":
        _ = model.engine(objective)  # its self-check has probed
        return _plain(loaded, batch, objective, BASE)
    if case.case == "mezo" or case.case in WAYS:
        engine = WAYS.get(case.case, Way()).engine(model, objective)
        return lambda number: mezo_step(
            engine,
            TwoPoint(EPSILON),
            [batch],
            draw_of(case.seed, number, 1),
            LEARNING_RATE,
        )
    if case.case == "rows":
        engine, estimator = model.engine(objective), a_direction_a_row(EPSILON)
        return lambda number: mezo_step(
            engine, estimator, [batch], draw_of(case.seed, number, len(batch)), LEARNING_RATE
        )
    if case.case == "reference":
        padded = Padded(batch, OBJECTIVES[objective], model.pad)
        return lambda number: reference_step(
            model.parameters, lambda: padded.loss(model.model), lr=LEARNING_RATE, eps=EPSILON, seed=number
        )
    return adamw(model, Padded(batch, OBJECTIVES["answer-ce"], model.pad))


def adamw(model: Tuned, padded: Padded) -> Callable[[int], object]:
    """Backpropagates the cross-entropy of the answers, whatever objective the other cases have."""
    for p in model.parameters:
        p.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters, lr=LEARNING_RATE)

    def step(number: int) -> None:
        optimizer.zero_grad()
        padded.loss(model.model).backward()
        optimizer.step()

    return step


def forget_peak() -> None:
    """Reset the peak that the kernel counts (Linux)."""
    if not memory.forget_peak():
        raise MezoError("peaks of memory are counted by Linux alone: /proc/self/clear_refs is not writable")


peak_since = memory.high_water


def main(arguments: list[str]) -> None:
    try:
        peak, made_of = peak_of(Case(**json.loads(arguments[0])))
        print(json.dumps({"peak": peak, "batch": made_of}))
    except MezoError as error:
        print(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main(sys.argv[1:])
