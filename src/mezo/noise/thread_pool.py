"""Plain threads for kernels that release the interpreter lock, where OpenMP's are not available (`team`)."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue


class _Job:
    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.ended: list[BaseException | None] = []  # one entry a worker; appending is atomic
        self.woken: SimpleQueue[None] = SimpleQueue()

    def assist(self) -> None:
        error: BaseException | None = None
        try:
            self.work()
        except BaseException as raised:  # raised on the thread that asked
            error = raised
        self.ended.append(error)
        self.woken.put(None)

    def wait(self, workers: int) -> None:
        while len(self.ended) < workers:
            with suppress(Empty):  # an interrupt may swallow a token, hence the limit
                self.woken.get(timeout=0.01)


_jobs: SimpleQueue[_Job] = SimpleQueue()
_workers: list[threading.Thread] = []


def run(work: Callable[[], object], threads: int) -> None:
    """Call `work` on this thread and on `threads - 1` workers; return when all calls have ended.

    An interrupt or an error is raised only then: nothing may write to memory whose owner has moved on.
    """
    while len(_workers) < threads - 1:
        _workers.append(threading.Thread(target=_serve, args=(_jobs,), daemon=True, name="mezo-noise"))
        _workers[-1].start()
    job = _Job(work)
    for _ in range(threads - 1):
        _jobs.put(job)
    try:
        work()
    finally:
        try:
            job.wait(threads - 1)
        except BaseException:
            job.wait(threads - 1)
            raise
    for error in filter(None, job.ended):
        raise error


def _serve(jobs: SimpleQueue[_Job]) -> None:
    while True:
        jobs.get().assist()


def _forget_workers() -> None:
    """Threads do not survive a fork; neither may the list of them, nor a queue in mid-operation."""
    global _jobs
    _workers.clear()
    _jobs = SimpleQueue()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)
