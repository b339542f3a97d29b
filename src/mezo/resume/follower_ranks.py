"""Resuming a run on several processes: one writes it, the others read it and stand where that one stands."""

from typing import Any

import numpy as np

from mezo.build.setup import Prepared
from mezo.engines.transformers.engine import TransformersEngine
from mezo.estimators import Estimator
from mezo.parallel.group import ProcessGroup
from mezo.resume.plan import plan, restore
from mezo.resume.session import Resume
from mezo.runs.result import TrainResult


def follow(
    resume: Resume | None,
    bench: Prepared,
    estimator: Estimator,
    result: TrainResult,
    *,
    remembers: bool,
    group: ProcessGroup,
) -> tuple[int, Any]:
    """(first step to do, the estimator's state), with theta there: as `session.take_up`, and writing nothing.

    result: gets what the run has done, which says, on all processes alike, whether an evaluation is due. For all processes but the leader, which writes nothing either until all of them have read (`meet`).
    """
    if resume is None:
        return 0, estimator.init()
    found = plan(resume.run, remembers=remembers)
    state = restore(found, bench.weights, bench.engine, estimator)
    meet(group)
    result.steps, result.evals = list(found.steps), list(found.evals)
    if resume.fork is None:
        return found.done, state
    engine = bench.engine
    before = found.header["branches"][-1] if found.header and found.header.get("branches") else found.header
    if (
        isinstance(engine, TransformersEngine)
        and before
        and before["config"]["optimizer"] != resume.config.optimizer
    ):
        engine.state = engine.optimizer.init(bench.weights)
    return found.done, estimator.init()


def meet(group: ProcessGroup) -> None:
    """Wait until all processes are here."""
    group.gather(np.zeros(1, dtype=np.int64))
