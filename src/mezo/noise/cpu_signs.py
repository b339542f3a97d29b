"""The signs of one vector under many seeds, in one call: what a step of rank-one directions asks for."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import carray  # pyright: ignore[reportPrivateImportUsage]

from mezo.noise import omp_threads
from mezo.noise.cpu_jit import F, L, U, atomic_add, kernel, pointer
from mezo.noise.cpu_stream import BLOCK, RADEMACHER, noise

_TAKEN, _OUT, _WIDTH, _START, _TENSOR, _SEEDS, _ROWS = range(7)
_WORDS = 8
_ALONE = 1 << 16  # elements; up to here, waking other threads costs more than they bring


@kernel
def _fill(address: Any) -> None:
    call = carray(pointer(address, L(0)), (_WORDS,))
    width, start, rows, tensor = call[_WIDTH], call[_START], call[_ROWS], U(call[_TENSOR])
    seeds = carray(pointer(call[_SEEDS], L(0)), (rows,))
    z, words = np.empty(BLOCK, np.float32), np.empty(64, np.uint32)
    while True:
        row = atomic_add(address, L(1))
        if row >= rows:
            break
        out = carray(pointer(call[_OUT] + row * width * 4, F(0)), (width,))
        for block in range(start >> 9, (start + width + 511) >> 9):
            base = (block << 9) - start  # the block's first element, counted in columns
            first, last = max(L(0), -base), min(L(BLOCK), width - base)
            noise(z, words, block == start >> 9, RADEMACHER, block, first, last, tensor, U(0), seeds[row])
            os, zs = out[base + first : base + last], z[first:last]
            for i in range(last - first):
                os[i] = zs[i]


def fill_(out: torch.Tensor, tensor_id: int, start: int, seeds: Sequence[int]) -> None:
    """out (seeds, n) float32, contiguous = the signs of elements `start` on of a tensor, a row for each seed."""
    keys = (ctypes.c_int64 * len(seeds))(*map(int, seeds))
    call = (ctypes.c_int64 * _WORDS)()
    call[_OUT], call[_WIDTH], call[_START] = out.data_ptr(), out.shape[1], start
    call[_TENSOR], call[_SEEDS], call[_ROWS] = tensor_id, ctypes.addressof(keys), len(seeds)
    threads = 1 if out.numel() <= _ALONE else torch.get_num_threads()
    omp_threads.run(_fill, ctypes.addressof(call), threads)
