"""Threads for a kernel: torch's own OpenMP team.

After a matrix product torch's worker threads spin for milliseconds; other threads would compete with them for the
cores, and noise took twice as long inside a step. So kernels run on torch's threads, through the entry point that
compilers call for `#pragma omp parallel`. Where that is missing (macOS, a torch without OpenMP), and in a forked
child, where such a team hangs, plain threads serve (`thread_pool`).
"""

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mezo.noise import thread_pool
from mezo.noise.cpu_jit import Native

_forked = False


def run(kernel: Native, address: int, threads: int) -> None:
    """Call `kernel` on `threads` threads with one address, and return when all have ended.

    OpenMP may grant fewer, and inside another parallel region only one.
    """
    if threads == 1:
        kernel.call(address)
    elif _forked or (parallel := _parallel()) is None:
        thread_pool.run(lambda: kernel.call(address), threads)
    else:
        parallel(kernel.address, address, threads, 0)


@cache
def _parallel() -> Any:
    """`GOMP_parallel(function, data, threads, flags)` of the runtime that torch uses, or None.

    Looked up as the loader did for torch. GCC's, LLVM's and Intel's OpenMP runtimes have it.
    """
    if not sys.platform.startswith("linux") or not torch.backends.openmp.is_available():
        return None
    for path in (None, Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"):
        try:
            function = ctypes.CDLL(path and str(path)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        function.restype = None
        return function
    return None


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
