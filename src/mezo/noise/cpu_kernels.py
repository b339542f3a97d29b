"""What one thread does to one 2-D piece of a tensor.

A piece arrives as an address, a row stride and a shape, because boxing arrays costs more than a
small LoRA tensor's noise. Work goes by blocks of the global index, in float32 buffers that stay in
the first-level cache; a block's input is read before its output is written, so output may be the
input itself.

like: a scalar of the element type. w, plus, minus, out: the address of element [0, 0]; *_stride:
bytes from one row to the next. start, row_stride, tensor: the `Where`.
"""

from typing import Any

import numpy as np
from numba import carray  # pyright: ignore[reportPrivateImportUsage]

from mezo.noise.cpu_formats import load, nearest, stochastic
from mezo.noise.cpu_jit import F, I, L, U, kernel, pointer
from mezo.noise.cpu_stream import BLOCK, noise, rounding_bits

NEAREST, STOCHASTIC = 0, 1


@kernel
def fill(
    out: int,
    out_stride: int,
    rows: int,
    cols: int,
    start: int,
    row_stride: int,
    tensor: int,
    seed: int,
    kind: int,
    purpose: int,
) -> None:
    """out (rows, cols) float32 = z."""
    z, words = np.empty(BLOCK, np.float32), np.empty(64, np.uint32)
    for row in range(rows):
        g = start + row * row_stride
        o = carray(pointer(out + row * out_stride, F(0)), (cols,))
        for block in range(g >> 9, (g + cols + 511) >> 9):
            base = (block << 9) - g  # the block's first element, counted in columns
            first, last = max(0, -base), min(BLOCK, cols - base)
            noise(z, words, block == g >> 9, kind, block, first, last, U(tensor), U(purpose), seed)
            os, zs = o[base + first : base + last], z[first:last]
            for i in range(last - first):
                os[i] = zs[i]


@kernel
def perturb(
    like: Any,
    w: int,
    w_stride: int,
    index: int,
    plus: int,
    plus_stride: int,
    minus: int,
    minus_stride: int,
    rows: int,
    cols: int,
    start: int,
    row_stride: int,
    tensor: int,
    seed: int,
    scale: float,
    kind: int,
) -> None:
    """plus = nearest(w + scale z), and, unless its address is 0, minus = nearest(w - scale z).

    Unless its address is 0, index (rows,) int64 holds the row of w, and of the whole tensor, that
    belongs in each row of plus and minus.
    """
    z, words = np.empty(BLOCK, np.float32), np.empty(64, np.uint32)
    y = np.empty(BLOCK, np.float32)
    a = F(scale)
    chosen = carray(pointer(index, L(0)), (rows,))
    for row in range(rows):
        source = chosen[row] if index else row
        g = start + source * row_stride
        x = carray(pointer(w + source * w_stride, like), (cols,))
        p = carray(pointer(plus + row * plus_stride, like), (cols,))
        m = carray(pointer(minus + row * minus_stride, like), (cols,))
        for block in range(g >> 9, (g + cols + 511) >> 9):
            base = (block << 9) - g
            first, last = max(0, -base), min(BLOCK, cols - base)
            noise(z, words, block == g >> 9, kind, block, first, last, U(tensor), U(0), seed)
            xs, ps, zs, n = (
                x[base + first : base + last],
                p[base + first : base + last],
                z[first:last],
                last - first,
            )
            if minus:
                ms = m[base + first : base + last]
                for i in range(n):
                    v = F(a * zs[i])
                    u = load(xs[i])
                    y[i] = F(u - v)
                    zs[i] = F(u + v)
                for i in range(n):
                    ms[i] = nearest(y[i], like)
            else:
                for i in range(n):
                    zs[i] = F(load(xs[i]) + F(a * zs[i]))
            for i in range(n):
                ps[i] = nearest(zs[i], like)


@kernel
def update(
    like: Any,
    w: int,
    w_stride: int,
    rows: int,
    cols: int,
    start: int,
    row_stride: int,
    tensor: int,
    seeds: Any,
    coefficients: Any,
    decay: float,
    kind: int,
    rounding: int,
    rounding_seed: int,
) -> None:
    """w = round(w decay + a_1 z_1 + a_2 z_2 ...), summed in this order; seeds (n,), coefficients (n,)."""
    z, words = np.empty(BLOCK, np.float32), np.empty((len(seeds), 64), np.uint32)
    y, r = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.uint32)
    keep = F(decay)
    for row in range(rows):
        g = start + row * row_stride
        x = carray(pointer(w + row * w_stride, like), (cols,))
        for block in range(g >> 9, (g + cols + 511) >> 9):
            base = (block << 9) - g
            first, last = max(0, -base), min(BLOCK, cols - base)
            xs, zs, n = x[base + first : base + last], z[first:last], last - first
            for i in range(n):
                y[i] = F(load(xs[i]) * keep)
            for k in range(len(seeds)):
                noise(z, words[k], block == g >> 9, kind, block, first, last, U(tensor), U(0), seeds[k])
                a = coefficients[k]
                for i in range(n):
                    y[i] = F(y[i] + F(a * zs[i]))
            if rounding == STOCHASTIC:
                rounding_bits(r, block, first, last, U(tensor), rounding_seed)
                rs = r[first:last]
                for i in range(n):
                    xs[i] = stochastic(y[i], rs[i], like)
            else:
                for i in range(n):
                    xs[i] = nearest(y[i], like)


@kernel
def sum_of_squares(
    rows: int, cols: int, start: int, row_stride: int, tensor: int, seed: int, kind: int
) -> Any:
    """The sum of round(4096 z)^2, exact: below 2^29 each, so no tensor overflows 64 bits."""
    z, words = np.empty(BLOCK, np.float32), np.empty(64, np.uint32)
    total = L(0)
    for row in range(rows):
        g = start + row * row_stride
        for block in range(g >> 9, (g + cols + 511) >> 9):
            base = (block << 9) - g
            first, last = max(0, -base), min(BLOCK, cols - base)
            noise(z, words, block == g >> 9, kind, block, first, last, U(tensor), U(0), seed)
            for i in range(first, last):
                # adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even
                v = L(I(F(F(F(z[i] * F(4096.0)) + F(12582912.0)) - F(12582912.0))))
                total += v * v
    return total
