"""Who hears that a noise kernel compiles on first use: a run's observer, and only while the run goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mezo import noise


@contextmanager
def announced(note: Callable[[str], object]) -> Iterator[None]:
    """Call `note` for every kernel that compiles inside the block, and whoever was called before after it.

    Without the second half, a kernel that compiles after a run writes to that run's output, closed by then.
    """
    before, noise.announce = noise.announce, note
    try:
        yield
    finally:
        noise.announce = before
