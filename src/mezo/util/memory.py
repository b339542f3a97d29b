"""How much memory this process has used, and what of it others can have."""

import contextlib
import ctypes
import resource
import sys


def peak_bytes() -> int:
    """The most resident memory this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux reports kilobytes


def give_back_freed() -> None:
    """Return memory that was freed to the system, where the C library keeps it for itself: glibc does, much of it."""
    with contextlib.suppress(OSError, AttributeError):  # another system, another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
