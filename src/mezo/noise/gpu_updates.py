"""What one Triton program does to store weights: an update, and values that are given.

arguments (int64): the seeds, then bits of float32: the coefficients, a `matched.Matched` (whose
exponent is an integer), for a table the decay of each tensor. The rest: see `gpu_kernels`.
"""

# Outside a kernel, Triton's functions only raise: a type checker takes their results for nothing.
# pyright: reportGeneralTypeIssues=false

# pyright: reportInvalidTypeForm=false

import triton
import triton.language as tl

from mezo.noise import rounding
from mezo.noise.gpu_formats import FLOAT32, load, nearest, stochastic, store, value
from mezo.noise.gpu_index import PLAIN, lanes, member, memory
from mezo.noise.gpu_matched import matched, passes_last
from mezo.noise.gpu_stream import from_bits, noise, words
from mezo.noise.gpu_table import ID, WEIGHT, WEIGHT_STRIDE, WIDTH

NEAREST = tl.constexpr(rounding.NEAREST)
STOCHASTIC = tl.constexpr(rounding.STOCHASTIC)
MATCHED = tl.constexpr(rounding.MATCHED)


@triton.jit
def _float(address):
    """The float32 whose bits are in the int64 there."""
    return from_bits(tl.load(address).to(tl.uint32))


@triton.jit
def _begun(w, column, cols, decay, FORM: tl.constexpr, ROUNDING: tl.constexpr):
    """What the directions are added to: the decayed weight, or for matched rounding 0."""
    if ROUNDING == MATCHED:
        x = tl.zeros_like(column).to(tl.float32)
    else:
        x = load(w, column, (column >= 0) & (column < cols), FORM) * decay
    return x


@triton.jit
def _stored(
    w,
    column,
    cols,
    x,
    r,
    decay,
    first,
    start,
    second,
    slope,
    rest,
    FORM: tl.constexpr,
    ROUNDING: tl.constexpr,
):
    mask = (column >= 0) & (column < cols)
    if ROUNDING == MATCHED:
        decayed = value(stochastic(load(w, column, mask, FORM) * decay, r, FORM), FORM)
        v = matched(decayed, x, r, first, start, second, slope, rest, FORM)
    elif ROUNDING == STOCHASTIC:
        v = stochastic(x, r, FORM)
    else:
        v = nearest(x, FORM)
    store(w, column, mask, v, FORM)


@triton.jit
def _rounding_bits(c, tensor, seed, needed):
    """Four words (lanes,) for each lane c, if they are needed."""
    r0 = tl.zeros_like(c).to(tl.uint32)
    r1, r2, r3 = r0, r0, r0
    if needed:
        r0, r1, r2, r3 = words(c, tensor, tl.full((), 1, tl.uint32), seed)
    return r0, r1, r2, r3


@triton.jit
def _update_lanes(
    w,
    c,
    o,
    cols,
    tensor,
    arguments,
    directions,
    decay,
    rounding_seed,
    KIND: tl.constexpr,
    FORM: tl.constexpr,
    ROUNDING: tl.constexpr,
):
    x0 = _begun(w, o, cols, decay, FORM, ROUNDING)
    x1 = _begun(w, o + 16, cols, decay, FORM, ROUNDING)
    x2 = _begun(w, o + 32, cols, decay, FORM, ROUNDING)
    x3 = _begun(w, o + 48, cols, decay, FORM, ROUNDING)
    x4 = _begun(w, o + 64, cols, decay, FORM, ROUNDING)
    x5 = _begun(w, o + 80, cols, decay, FORM, ROUNDING)
    x6 = _begun(w, o + 96, cols, decay, FORM, ROUNDING)
    x7 = _begun(w, o + 112, cols, decay, FORM, ROUNDING)
    for k in range(directions):
        seed = tl.load(arguments + k)
        a = _float(arguments + directions + k)
        z0, z1, z2, z3, z4, z5, z6, z7 = noise(c, tensor, tl.full((), 0, tl.uint32), seed, KIND)
        x0 += a * z0
        x1 += a * z1
        x2 += a * z2
        x3 += a * z3
        x4 += a * z4
        x5 += a * z5
        x6 += a * z6
        x7 += a * z7
    levels = arguments + 2 * directions
    f, t, s, p, q = (
        tl.load(levels).to(tl.int32),
        _float(levels + 1),
        _float(levels + 2),
        _float(levels + 3),
        _float(levels + 4),
    )
    needed = ROUNDING != NEAREST
    if ROUNDING == MATCHED:
        largest = tl.maximum(tl.maximum(tl.abs(x0), tl.abs(x1)), tl.maximum(tl.abs(x2), tl.abs(x3)))
        largest = tl.maximum(largest, tl.maximum(tl.abs(x4), tl.abs(x5)))
        largest = tl.max(tl.maximum(largest, tl.maximum(tl.abs(x6), tl.abs(x7))), 0)
        needed = (decay != 1.0) | passes_last(largest, f, t, s, p, q)
    r0, r1, r2, r3 = _rounding_bits(c, tensor, rounding_seed, needed)
    _stored(w, o, cols, x0, r0 & 0xFFFF, decay, f, t, s, p, q, FORM, ROUNDING)
    _stored(w, o + 16, cols, x1, r0 >> 16, decay, f, t, s, p, q, FORM, ROUNDING)
    _stored(w, o + 32, cols, x2, r1 & 0xFFFF, decay, f, t, s, p, q, FORM, ROUNDING)
    _stored(w, o + 48, cols, x3, r1 >> 16, decay, f, t, s, p, q, FORM, ROUNDING)
    _stored(w, o + 64, cols, x4, r2 & 0xFFFF, decay, f, t, s, p, q, FORM, ROUNDING)
    _stored(w, o + 80, cols, x5, r2 >> 16, decay, f, t, s, p, q, FORM, ROUNDING)
    _stored(w, o + 96, cols, x6, r3 & 0xFFFF, decay, f, t, s, p, q, FORM, ROUNDING)
    _stored(w, o + 112, cols, x7, r3 >> 16, decay, f, t, s, p, q, FORM, ROUNDING)


@triton.jit(do_not_specialize=[*PLAIN, "directions", "rounding_seed"])
def update(
    w,
    w_stride,
    cols,
    programs,
    start: tl.int64,
    row_stride: tl.int64,
    tensor: tl.uint32,
    arguments,
    directions,
    decay: tl.float32,
    rounding_seed: tl.uint64,
    KIND: tl.constexpr,
    FORM: tl.constexpr,
    ROUNDING: tl.constexpr,
    LANES: tl.constexpr,
):
    """w = round(w decay + a_1 z_1 + a_2 z_2 ...); arguments int64: the seeds, then bits of float32:
    the coefficients and a `matched.Matched` (whose exponent is an integer)."""
    row = (tl.program_id(0) // programs).to(tl.int64)
    c, o = lanes(tl.program_id(0) % programs, start + row * row_stride, LANES)
    w += row * w_stride
    _update_lanes(w, c, o, cols, tensor, arguments, directions, decay, rounding_seed, KIND, FORM, ROUNDING)


@triton.jit(do_not_specialize=["directions", "rounding_seed"])
def update_all(
    table,
    owner,
    arguments,
    directions,
    rounding_seed: tl.uint64,
    KIND: tl.constexpr,
    FORM: tl.constexpr,
    ROUNDING: tl.constexpr,
    LANES: tl.constexpr,
):
    """`update` of all tensors of a table; arguments: then the bits of each tensor's decay."""
    number, row, entry, c, o = member(table, owner, LANES)
    w = memory(tl.load(entry + WEIGHT), FORM) + row * tl.load(entry + WEIGHT_STRIDE)
    cols, tensor = tl.load(entry + WIDTH), tl.load(entry + ID).to(tl.uint32)
    decay = _float(arguments + 2 * directions + 5 + number)
    _update_lanes(w, c, o, cols, tensor, arguments, directions, decay, rounding_seed, KIND, FORM, ROUNDING)


@triton.jit
def _kept(w, values, column, cols, r, FORM: tl.constexpr, ROUNDING: tl.constexpr):
    mask = (column >= 0) & (column < cols)
    x = load(values, column, mask, FLOAT32)
    store(w, column, mask, stochastic(x, r, FORM) if ROUNDING == STOCHASTIC else nearest(x, FORM), FORM)


@triton.jit(do_not_specialize=[*PLAIN, "rounding_seed"])
def store_values(
    w,
    w_stride,
    values,
    values_stride,
    cols,
    programs,
    start: tl.int64,
    row_stride: tl.int64,
    tensor: tl.uint32,
    rounding_seed: tl.uint64,
    FORM: tl.constexpr,
    ROUNDING: tl.constexpr,
    LANES: tl.constexpr,
):
    """w = round(values), of float32."""
    row = (tl.program_id(0) // programs).to(tl.int64)
    c, o = lanes(tl.program_id(0) % programs, start + row * row_stride, LANES)
    w += row * w_stride
    y = values + row * values_stride
    r0, r1, r2, r3 = _rounding_bits(c, tensor, rounding_seed, ROUNDING != NEAREST)
    _kept(w, y, o, cols, r0 & 0xFFFF, FORM, ROUNDING)
    _kept(w, y, o + 16, cols, r0 >> 16, FORM, ROUNDING)
    _kept(w, y, o + 32, cols, r1 & 0xFFFF, FORM, ROUNDING)
    _kept(w, y, o + 48, cols, r1 >> 16, FORM, ROUNDING)
    _kept(w, y, o + 64, cols, r2 & 0xFFFF, FORM, ROUNDING)
    _kept(w, y, o + 80, cols, r2 >> 16, FORM, ROUNDING)
    _kept(w, y, o + 96, cols, r3 & 0xFFFF, FORM, ROUNDING)
    _kept(w, y, o + 112, cols, r3 >> 16, FORM, ROUNDING)
