"""How much memory this process has used, and giving back what it no longer needs."""

import ctypes
import mmap
import re
import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """The most resident memory this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux reports kilobytes


def release_library(name: str) -> int:
    """Give back the resident pages of a shared library that this process has not altered (Linux); the bytes.

    They are a copy of what is on disk: whatever is used again is read back, so nothing changes but the
    memory. name: the start of the file's name. Elsewhere than on Linux nothing happens.
    """
    smaps = Path("/proc/self/smaps")
    if not smaps.exists():
        return 0
    advise, released = ctypes.CDLL(None).madvise, 0
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for first, last, path, fields in _mappings(smaps.read_text(errors="replace")):
        # an altered page (a relocated table of addresses) would come back as it is on disk, unaltered
        if (
            Path(path).name.startswith(name)
            and "w" not in fields["access"]
            and fields["Private_Dirty"] == "0"
        ) and advise(first, last - first, mmap.MADV_DONTNEED) == 0:
            released += int(fields["Rss"]) * 1024
    return released


_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)")


def _mappings(smaps: str) -> list[tuple[int, int, str, dict[str, str]]]:
    """(first address, one past the last, path, fields in kB and "access") of every mapping."""
    found: list[tuple[int, int, str, dict[str, str]]] = []
    for line in smaps.splitlines():
        if head := _MAPPING.fullmatch(line):
            found.append((int(head[1], 16), int(head[2], 16), head[4], {"access": head[3]}))
        elif found and ":" in line:
            field, value = line.split(":", 1)
            found[-1][3][field] = value.split()[0] if value.split() else ""
    return found
