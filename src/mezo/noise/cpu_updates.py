"""The kernels that write weights: one update of them, or many in turn. Threads and pieces as in `cpu_kernels`.

Many updates go through memory once: a thread applies all of them to a piece, 16,384 elements which stay in
its cache, and goes on to the next. Elements know nothing of each other, and each sees its updates in their
order, every one rounded as if it came alone: the same bits as one pass for each.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import carray  # pyright: ignore[reportPrivateImportUsage]

from mezo.noise import cpu_table as t
from mezo.noise.cpu_formats import load, nearest, stochastic
from mezo.noise.cpu_jit import F, L, U, atomic_add, from_bits, inline, kernel, pointer
from mezo.noise.cpu_matched import moved, moved_by_bits, thresholds
from mezo.noise.cpu_stream import BLOCK, noise, rounding_bits
from mezo.noise.rounding import MATCHED, NEAREST, STOCHASTIC

_BF16, _FP16 = np.uint16(0), np.int16(0)  # their bits


class Span(NamedTuple):
    """Elements [first, last) of a block of a tensor's stream."""

    tensor: Any  # its id
    block: Any
    first: Any
    last: Any
    fresh: Any  # whether the block before was another tensor's or row's


class KernelUpdate(NamedTuple):
    """One update: decay, then the sum of coefficients[k] z(seeds[k]), then rounding."""

    kind: Any  # of noise
    seeds: Any
    coefficients: Any
    decay: Any
    rounding: Any
    rounding_seed: Any
    by: Any  # thresholds of matched rounding


class KernelScratch(NamedTuple):
    """A thread's own memory: z, y, w, r are (BLOCK,); words is (directions, 64) and kept from block to block."""

    z: Any
    words: Any
    y: Any
    w: Any
    r: Any


@inline
def _step(xs: Any, at: Any, change: Any, scratch: Any, like: Any) -> None:
    """xs = round(xs decay + a_1 z_1 + a_2 z_2 ...), summed in this order; matched, round(xs decay) + (a_1 z_1 ...).

    xs: the elements of `at`, a Span; change, scratch: a KernelUpdate and a KernelScratch.
    """
    tensor, block, first, last, fresh = at
    kind, seeds, coefficients, decay, rounding, rounding_seed, by = change
    z, words, y, w, r = scratch
    directions = len(seeds)
    zs, n = z[first:last], last - first
    ys, rs = y[:n], r[first:last]
    if rounding == NEAREST and directions == 1:  # what nearly every step in float32 is: one loop for it all
        noise(z, words[0], fresh, kind, block, first, last, tensor, U(0), seeds[0])
        c = coefficients[0]
        for i in range(n):
            xs[i] = nearest(F(F(load(xs[i]) * decay) + F(c * zs[i])), like)
        return
    if rounding != MATCHED:
        for i in range(n):
            y[i] = F(load(xs[i]) * decay)
    else:
        ys[:] = F(0)
    for k in range(directions):
        noise(z, words[k], fresh, kind, block, first, last, tensor, U(0), seeds[k])
        c = coefficients[k]
        if rounding != MATCHED or k < directions - 1:
            for i in range(n):
                y[i] = F(y[i] + F(c * zs[i]))
    if rounding == STOCHASTIC:
        rounding_bits(r, block, first, last, tensor, rounding_seed)
        for i in range(n):
            xs[i] = stochastic(y[i], rs[i], like)
    elif rounding == NEAREST:
        for i in range(n):
            xs[i] = nearest(y[i], like)
    else:
        if decay != F(1):
            rounding_bits(r, block, first, last, tensor, rounding_seed)
            for i in range(n):
                xs[i] = stochastic(F(load(xs[i]) * decay), rs[i], like)
        c = coefficients[directions - 1]
        if moved(xs, ys, c, zs, w[:n], by, like):
            rounding_bits(r, block, first, last, tensor, rounding_seed)
            moved_by_bits(xs, ys, c, zs, w[:n], rs, by, like)


@inline
def _update(address: Any, like: Any) -> None:
    call = t.words(address)
    table = t.table(call)
    pieces, kind = call[t.PIECES], call[t.KIND]
    directions, rounding, rounding_seed = call[t.DIRECTIONS], call[t.ROUNDING], call[t.ROUNDING_SEED]
    z, words = np.empty(BLOCK, np.float32), np.empty((directions, 64), np.uint32)
    y, w, r = np.zeros(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.uint32)
    scratch = KernelScratch(z, words, y, w, r)
    seeds = carray(pointer(call[t.SEEDS], L(0)), (directions,))
    coefficients = carray(pointer(call[t.COEFFICIENTS], F(0)), (directions,))
    by = thresholds(call[t.LEVELS])
    at = 0
    while True:
        number = atomic_add(address, L(1))
        if number >= pieces:
            break
        at = t.find(table, at, number)
        a = table[at]
        tensor = U(a[t.ID])
        top, rows, left, cols = t.piece(a, number - a[t.BEFORE])
        change = KernelUpdate(
            kind, seeds, coefficients, from_bits(U(a[t.DECAY])), rounding, rounding_seed, by
        )
        for row in range(top, top + rows):
            g = a[t.START] + row * a[t.ROW_STRIDE] + left
            x = t.row_of(a[t.WEIGHT] + row * a[t.WEIGHT_STRIDE], like, a[t.WIDTH], left, left + cols)
            for block in range(g >> 9, (g + cols + 511) >> 9):
                base = (block << 9) - g
                first, last = max(0, -base), min(BLOCK, cols - base)
                xs, fresh = x[base + first : base + last], block == g >> 9
                _step(xs, Span(tensor, block, first, last, fresh), change, scratch, like)


@inline
def _update_sequence(address: Any, like: Any) -> None:
    """`_update` by the steps of each tensor, one after another. DIRECTIONS: the most that a step has."""
    call = t.words(address)
    table = t.table(call)
    pieces, kind = call[t.PIECES], call[t.KIND]
    z, words = np.empty(BLOCK, np.float32), np.empty((call[t.DIRECTIONS], 64), np.uint32)
    y, w, r = np.zeros(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.uint32)
    scratch = KernelScratch(z, words, y, w, r)
    at = 0
    while True:
        number = atomic_add(address, L(1))
        if number >= pieces:
            break
        at = t.find(table, at, number)
        a = table[at]
        tensor = U(a[t.ID])
        top, rows, left, cols = t.piece(a, number - a[t.BEFORE])
        for s in carray(pointer(a[t.STEPS], L(0)), (a[t.HOW_MANY], t.STEP_WORDS)):
            directions = s[t.STEP_DIRECTIONS]
            seeds = carray(pointer(s[t.STEP_SEEDS], L(0)), (directions,))
            coefficients = carray(pointer(s[t.STEP_COEFFICIENTS], F(0)), (directions,))
            by, decay = thresholds(s[t.STEP_LEVELS]), from_bits(U(s[t.STEP_DECAY]))
            rounding, rounding_seed = s[t.STEP_ROUNDING], s[t.STEP_ROUNDING_SEED]
            change = KernelUpdate(kind, seeds, coefficients, decay, rounding, rounding_seed, by)
            for row in range(top, top + rows):
                g = a[t.START] + row * a[t.ROW_STRIDE] + left
                x = t.row_of(a[t.WEIGHT] + row * a[t.WEIGHT_STRIDE], like, a[t.WIDTH], left, left + cols)
                for block in range(g >> 9, (g + cols + 511) >> 9):
                    base = (block << 9) - g
                    first, last = max(0, -base), min(BLOCK, cols - base)
                    xs, fresh = x[base + first : base + last], block == g >> 9
                    _step(xs, Span(tensor, block, first, last, fresh), change, scratch, like)


# Numba keeps module-level functions, hence one for each type.


@kernel
def update_fp32(address: int) -> None:
    _update(address, F(0))


@kernel
def update_bf16(address: int) -> None:
    _update(address, _BF16)


@kernel
def update_fp16(address: int) -> None:
    _update(address, _FP16)


@kernel
def update_sequence_fp32(address: int) -> None:
    _update_sequence(address, F(0))


@kernel
def update_sequence_bf16(address: int) -> None:
    _update_sequence(address, _BF16)


@kernel
def update_sequence_fp16(address: int) -> None:
    _update_sequence(address, _FP16)
