"""What each thread does for an operation: take a piece of a tensor, work on it, take the next.

A kernel is handed one address (`cpu_table` says of what): that is all an OpenMP runtime passes on,
and boxing arrays costs more than a small LoRA tensor's noise. Work is divided into blocks of the global
index, in float32 buffers that stay in the first-level cache; a block's input is read before its
output is written, so output may be the input itself.

`like` is a scalar of the element type; a kernel is compiled for each. Updates: `cpu_updates`.
"""

from typing import Any

import numpy as np
from numba import carray  # pyright: ignore[reportPrivateImportUsage]

from mezo.noise import cpu_table as t
from mezo.noise.cpu_formats import load, nearest, stochastic
from mezo.noise.cpu_jit import F, I, L, U, atomic_add, inline, kernel, pointer
from mezo.noise.cpu_stream import BLOCK, noise, rounding_bits
from mezo.noise.rounding import STOCHASTIC

_BF16, _FP16 = np.uint16(0), np.int16(0)  # their bits


@kernel
def fill(address: int) -> None:
    """w (rows, columns) float32 = z."""
    call = t.words(address)
    table = t.table(call)
    pieces, kind, seed, purpose = call[t.PIECES], call[t.KIND], call[t.SEED], U(call[t.PURPOSE])
    z, words = np.empty(BLOCK, np.float32), np.empty(64, np.uint32)
    at = 0
    while True:
        number = atomic_add(address, L(1))
        if number >= pieces:
            break
        at = t.find(table, at, number)
        a = table[at]
        tensor = U(a[t.ID])
        top, rows, left, cols = t.piece(a, number - a[t.BEFORE])
        for row in range(top, top + rows):
            g = a[t.START] + row * a[t.ROW_STRIDE] + left
            o = t.row_of(a[t.WEIGHT] + row * a[t.WEIGHT_STRIDE], F(0), a[t.WIDTH], left, left + cols)
            for block in range(g >> 9, (g + cols + 511) >> 9):
                base = (block << 9) - g  # the block's first element, counted in columns of the piece
                first, last = max(0, -base), min(BLOCK, cols - base)
                fresh = block == g >> 9
                noise(z, words, fresh, kind, block, first, last, tensor, purpose, seed)
                os, zs = o[base + first : base + last], z[first:last]
                for i in range(last - first):
                    os[i] = zs[i]


@inline
def _perturb(address: Any, like: Any) -> None:
    """plus = nearest(w + scale z), and, unless its address is 0, minus = nearest(w - scale z).

    Unless its address is 0, INDEX (rows,) int64 holds the row of w, and of the whole tensor, that
    belongs in each row of plus and minus.
    """
    call = t.words(address)
    table = t.table(call)
    pieces, kind, seed = call[t.PIECES], call[t.KIND], call[t.SEED]
    z, words = np.empty(BLOCK, np.float32), np.empty(64, np.uint32)
    scale = F(carray(pointer(address, 0.0), (t.WORDS,))[t.SCALE])
    at = 0
    while True:
        number = atomic_add(address, L(1))
        if number >= pieces:
            break
        at = t.find(table, at, number)
        a = table[at]
        tensor = U(a[t.ID])
        top, rows, left, cols = t.piece(a, number - a[t.BEFORE])
        width, right, index, pair = a[t.WIDTH], left + cols, a[t.INDEX], a[t.MINUS] != 0
        for row in range(top, top + rows):
            source = carray(pointer(index, L(0)), (a[t.HEIGHT],))[row] if index else row
            g = a[t.START] + source * a[t.ROW_STRIDE] + left
            x = t.row_of(a[t.WEIGHT] + source * a[t.WEIGHT_STRIDE], like, width, left, right)
            p = t.row_of(a[t.PLUS] + row * a[t.PLUS_STRIDE], like, width, left, right)
            m = t.row_of(a[t.MINUS] + row * a[t.MINUS_STRIDE], like, width, left, right)
            for block in range(g >> 9, (g + cols + 511) >> 9):
                base = (block << 9) - g
                first, last = max(0, -base), min(BLOCK, cols - base)
                fresh = block == g >> 9
                noise(z, words, fresh, kind, block, first, last, tensor, U(0), seed)
                n = last - first
                xs, ps, zs = x[base + first : base + last], p[base + first : base + last], z[first:last]
                # one loop for each way that memory may be shared: where it might, none is vectorised
                if pair:
                    ms = m[base + first : base + last]
                    for i in range(n):
                        v = F(scale * zs[i])
                        u = load(xs[i])
                        ps[i] = nearest(F(u + v), like)
                        ms[i] = nearest(F(u - v), like)
                elif a[t.PLUS] == a[t.WEIGHT]:
                    for i in range(n):
                        xs[i] = nearest(F(load(xs[i]) + F(scale * zs[i])), like)
                else:
                    for i in range(n):
                        ps[i] = nearest(F(load(xs[i]) + F(scale * zs[i])), like)


@inline
def _store(address: Any, like: Any) -> None:
    """w = round(values), the float32 at PLUS."""
    call = t.words(address)
    table = t.table(call)
    pieces, rounding, seed = call[t.PIECES], call[t.ROUNDING], call[t.ROUNDING_SEED]
    r = np.empty(BLOCK, np.uint32)
    at = 0
    while True:
        number = atomic_add(address, L(1))
        if number >= pieces:
            break
        at = t.find(table, at, number)
        a = table[at]
        tensor = U(a[t.ID])
        top, rows, left, cols = t.piece(a, number - a[t.BEFORE])
        for row in range(top, top + rows):
            g = a[t.START] + row * a[t.ROW_STRIDE] + left
            x = t.row_of(a[t.WEIGHT] + row * a[t.WEIGHT_STRIDE], like, a[t.WIDTH], left, left + cols)
            y = t.row_of(a[t.PLUS] + row * a[t.PLUS_STRIDE], F(0), a[t.WIDTH], left, left + cols)
            for block in range(g >> 9, (g + cols + 511) >> 9):
                base = (block << 9) - g
                first, last = max(0, -base), min(BLOCK, cols - base)
                xs, ys, rs = x[base + first : base + last], y[base + first : base + last], r[first:last]
                if rounding == STOCHASTIC:
                    rounding_bits(r, block, first, last, tensor, seed)
                    for i in range(last - first):
                        xs[i] = stochastic(ys[i], rs[i], like)
                else:
                    for i in range(last - first):
                        xs[i] = nearest(ys[i], like)


@kernel
def sum_of_squares(address: int) -> None:
    """TOTAL += the sum of round(4096 z)^2, exact: below 2^29 each, so no tensor overflows 64 bits."""
    call = t.words(address)
    table = t.table(call)
    pieces, kind, seed = call[t.PIECES], call[t.KIND], call[t.SEED]
    z, words = np.empty(BLOCK, np.float32), np.empty(64, np.uint32)
    total = L(0)
    at = 0
    while True:
        number = atomic_add(address, L(1))
        if number >= pieces:
            break
        at = t.find(table, at, number)
        a = table[at]
        tensor = U(a[t.ID])
        top, rows, left, cols = t.piece(a, number - a[t.BEFORE])
        for row in range(top, top + rows):
            g = a[t.START] + row * a[t.ROW_STRIDE] + left
            for block in range(g >> 9, (g + cols + 511) >> 9):
                base = (block << 9) - g
                first, last = max(0, -base), min(BLOCK, cols - base)
                fresh = block == g >> 9
                noise(z, words, fresh, kind, block, first, last, tensor, U(0), seed)
                for i in range(first, last):
                    # adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even
                    v = L(I(F(F(F(z[i] * F(4096.0)) + F(12582912.0)) - F(12582912.0))))
                    total += v * v
    atomic_add(address + 8 * t.TOTAL, total)


# Numba keeps module-level functions, hence one for each type.


@kernel
def perturb_fp32(address: int) -> None:
    _perturb(address, F(0))


@kernel
def perturb_bf16(address: int) -> None:
    _perturb(address, _BF16)


@kernel
def perturb_fp16(address: int) -> None:
    _perturb(address, _FP16)


@kernel
def store_fp32(address: int) -> None:
    _store(address, F(0))


@kernel
def store_bf16(address: int) -> None:
    _store(address, _BF16)


@kernel
def store_fp16(address: int) -> None:
    _store(address, _FP16)
