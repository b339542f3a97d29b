"""Resuming a run on several processes: the leader writes it, the others read it and reach the same state."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mezo.parallel.group import ProcessGroup
from mezo.resume.plan import FreshRun, ResumePlan, plan
from mezo.resume.session import Resume, restored


def follow(resume: Resume, fresh: FreshRun, *, ready: Callable[[], object]) -> tuple[ResumePlan, Any]:
    """Resume or fork a run, as `session.take_up` does, on a process that does not write it.

    Args:
        resume: which run.
        fresh: its weights and its engine are taken to where the run is.
        ready: called when everything is read; the leader writes nothing before it (`meet`).

    Returns:
        What the run has done, and the estimator's state.
    """
    found = plan(resume.run, remembers=fresh.remembers)
    state = restored(resume, found, fresh)
    ready()
    return found, state


def meet(group: ProcessGroup) -> None:
    """Wait until all processes are here."""
    group.gather(np.zeros(1, dtype=np.int64))
