"""Sums of low-rank noise on CPU tensors: one pass over memory, whatever the rank and the number of directions.

The reference is `mezo.weights.low_rank_noise.add_summed`, the same operations by torch, which other devices use.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numba import carray  # pyright: ignore[reportPrivateImportUsage]

from mezo.noise import omp_threads
from mezo.noise.cpu_jit import F, L, atomic_add, kernel, pointer

# A call: int64 words. VALUES: float32, the elements START to STOP of a matrix of COLUMNS columns. LEFT
# (directions, rank, rows touched, of which the first is FIRST) and RIGHT (directions, rank, columns),
# float32; FACTORS (directions) float32.
_TAKEN, _VALUES, _START, _STOP, _COLUMNS, _FIRST, _ROWS = range(7)
_LEFT, _RIGHT, _FACTORS, _DIRECTIONS, _RANK = range(7, 12)
_WORDS: Final = 12
_WIDTH: Final = 512  # columns at a time, so that what is summed stays in the first cache
_ALONE = 1 << 15  # elements; up to here, waking other threads costs more than they bring


@kernel
def _add(address: Any) -> None:
    call = carray(pointer(address, L(0)), (_WORDS,))
    start, stop, columns, first, rows = call[_START], call[_STOP], call[_COLUMNS], call[_FIRST], call[_ROWS]
    directions, rank = call[_DIRECTIONS], call[_RANK]
    values = carray(pointer(call[_VALUES], F(0)), (stop - start,))
    left = carray(pointer(call[_LEFT], F(0)), (directions, rank, rows))
    right = carray(pointer(call[_RIGHT], F(0)), (directions, rank, columns))
    factors = carray(pointer(call[_FACTORS], F(0)), (directions,))
    z = np.empty(_WIDTH, np.float32)
    while True:
        row = atomic_add(address, L(1))
        if row >= rows:
            break
        begin = (first + row) * columns
        for c in range(max(L(0), start - begin), min(columns, stop - begin), _WIDTH):
            end = min(c + _WIDTH, min(columns, stop - begin))
            y, n = values[begin + c - start : begin + end - start], end - c
            for d in range(directions):
                a = factors[d]
                for k in range(rank):
                    u, v = left[d, k, row], right[d, k, c:end]
                    if k == 0:
                        for i in range(n):
                            z[i] = F(u * v[i])
                    else:
                        for i in range(n):
                            z[i] = F(z[i] + F(u * v[i]))
                for i in range(n):
                    y[i] = F(y[i] + F(a * z[i]))


def add_(
    values: torch.Tensor,
    start: int,
    left: torch.Tensor,
    right: torch.Tensor,
    coefficients: Sequence[float],
    first: int,
) -> None:
    """values (n,) float32 += sum_d coefficients[d] * left[d]^T right[d], at the elements from `start` on.

    left: (directions, r, rows touched by these elements, of which the first is `first`). right:
    (directions, r, columns). Both float32 and contiguous.
    """
    directions, rank, rows = left.shape
    factors = (ctypes.c_float * directions)(*coefficients)
    call = (ctypes.c_int64 * _WORDS)()
    call[_VALUES], call[_START], call[_STOP] = values.data_ptr(), start, start + values.numel()
    call[_COLUMNS], call[_FIRST], call[_ROWS] = right.shape[2], first, rows
    call[_LEFT], call[_RIGHT] = left.data_ptr(), right.data_ptr()
    call[_FACTORS], call[_DIRECTIONS], call[_RANK] = ctypes.addressof(factors), directions, rank
    threads = 1 if values.numel() <= _ALONE else torch.get_num_threads()
    omp_threads.run(_add, ctypes.addressof(call), threads)
