"""How much memory this process has used, and what of it others can have."""

import contextlib
import ctypes
import re
import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """The most resident memory this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux reports kilobytes


def high_water() -> int:
    """The most resident memory of this process since `forget_peak`, in bytes; 0 except on Linux."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def forget_peak() -> bool:
    """Set the mark of `high_water` to what is resident now (5: see proc(5)); False where that cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def give_back_freed() -> None:
    """Return memory that was freed to the system, where the C library keeps it for itself: glibc does, much of it."""
    with contextlib.suppress(OSError, AttributeError):  # another system, another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
