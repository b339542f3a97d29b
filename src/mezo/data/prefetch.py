"""The next step's batch is made while the current step runs."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def ahead(make: Callable[[int], T], first: int, end: int) -> Iterator[Iterator[T]]:
    """make(first), make(first + 1), ... make(end - 1), each begun when the one before it is handed out.

    `make` runs on one background thread, one call at a time and in order, so what it gives is what a
    plain loop over it gives; what it raises is raised where its result would have been handed out.
    `make` must not depend on what the loop does with the results. The thread is gone when the block
    ends, however it ends: a call that is under way then is waited for.

    >>> with ahead(prepare, 0, num_steps) as batches:
    ...     for batch in batches: ...
    """
    with ThreadPoolExecutor(1, "mezo-ahead") as pool:
        _keep_to_one_core(pool)
        yield _each(pool, make, first, end)


def _each(pool: ThreadPoolExecutor, make: Callable[[int], T], first: int, end: int) -> Iterator[T]:
    coming = pool.submit(make, first) if first < end else None
    step = first
    while coming is not None:
        ready = coming.result()
        step += 1
        coming = pool.submit(make, step) if step < end else None
        yield ready


def _keep_to_one_core(pool: ThreadPoolExecutor) -> None:
    """Let torch use one core on that thread.

    torch's operations open a pool of threads for each thread that calls them, and the idle ones spin:
    a second pool takes the cores from the step under way.
    """
    import torch

    def on_the_thread() -> None:
        torch.get_num_threads()  # takes over the default; a later first use would undo the next line
        torch.set_num_threads(1)

    cores = torch.get_num_threads()
    pool.submit(on_the_thread).result()
    torch.set_num_threads(cores)  # the call above has set the default of threads to come, too
