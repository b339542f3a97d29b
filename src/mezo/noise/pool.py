"""A persistent pool of plain threads for kernels that release the interpreter lock.

Plain threads sleep when idle. A second OpenMP pool (Numba's `parallel=True`) spins, and takes the
cores from torch's: forward passes were measured ten times slower.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue

Call = Callable[[], object]


class _Job:
    """Calls, taken one by one by whoever is free; each that ends well puts a None into `done`."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = deque(calls)
        self.done: SimpleQueue[BaseException | None] = SimpleQueue()
        self.entered: list[None] = []  # one per worker that has begun ...
        self.left: list[None] = []  # ... and that has ended; appending is atomic

    def work(self) -> None:
        while self.calls:
            try:
                call = self.calls.popleft()
            except IndexError:  # another thread took the last one
                return
            call()
            self.done.put(None)

    def assist(self) -> None:
        self.entered.append(None)
        try:
            self.work()
        except BaseException as error:  # raised on the thread that asked
            self.done.put(error)
        finally:
            self.left.append(None)

    def abandon(self) -> None:
        """Drop the calls not begun and wait for those under way."""
        self.calls.clear()
        while len(self.left) < len(self.entered):
            time.sleep(0.0001)


_jobs: SimpleQueue[_Job] = SimpleQueue()
_workers: list[threading.Thread] = []


def run(calls: Sequence[Call], threads: int) -> None:
    """Make all calls, on this thread and up to `threads - 1` workers; return when all have ended.

    If a call fails or this thread is interrupted, calls not begun are dropped and those under way
    are waited for, so that nothing writes to memory whose owner believes the work is over.
    """
    wanted = min(threads, len(calls)) - 1
    while len(_workers) < wanted:
        _workers.append(threading.Thread(target=_serve, args=(_jobs,), daemon=True, name="mezo-noise"))
        _workers[-1].start()
    job = _Job(calls)
    for _ in range(wanted):
        _jobs.put(job)
    try:
        job.work()
        for _ in calls:
            if error := job.done.get():
                raise error
    except BaseException:
        job.abandon()
        raise


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
