"""What one Triton program does: LANES lanes of eight elements each, of one row.

w, plus, minus, out: pointers to float32 or, for 16-bit types, int16; *_stride: elements from one row
to the next. start, row_stride, tensor: the `Where`. programs: how many cover a row.
"""

# Outside a kernel, Triton's functions only raise: a type checker takes their results for nothing.
# pyright: reportGeneralTypeIssues=false

# pyright: reportInvalidTypeForm=false

import triton
import triton.language as tl

from mezo.noise.gpu_formats import load, nearest, store
from mezo.noise.gpu_index import PLAIN, lanes, member, memory
from mezo.noise.gpu_stream import from_bits, noise
from mezo.noise.gpu_table import (
    ID,
    MINUS,
    MINUS_STRIDE,
    PLUS,
    PLUS_STRIDE,
    WEIGHT,
    WEIGHT_STRIDE,
    WIDTH,
)


@triton.jit
def _fill(out, column, cols, z):
    tl.store(out + column, z, mask=(column >= 0) & (column < cols))


@triton.jit(do_not_specialize=[*PLAIN, "purpose"])
def fill(
    out,
    out_stride,
    cols,
    programs,
    start: tl.int64,
    row_stride: tl.int64,
    tensor: tl.uint32,
    seed: tl.uint64,
    purpose: tl.uint32,
    KIND: tl.constexpr,
    LANES: tl.constexpr,
):
    row = (tl.program_id(0) // programs).to(tl.int64)
    c, o = lanes(tl.program_id(0) % programs, start + row * row_stride, LANES)
    _fill_lanes(out + row * out_stride, c, o, cols, tensor, purpose, seed, KIND)


@triton.jit
def _fill_lanes(to, c, o, cols, tensor, purpose, seed, KIND: tl.constexpr):
    z0, z1, z2, z3, z4, z5, z6, z7 = noise(c, tensor, purpose, seed, KIND)
    _fill(to, o, cols, z0)
    _fill(to, o + 16, cols, z1)
    _fill(to, o + 32, cols, z2)
    _fill(to, o + 48, cols, z3)
    _fill(to, o + 64, cols, z4)
    _fill(to, o + 80, cols, z5)
    _fill(to, o + 96, cols, z6)
    _fill(to, o + 112, cols, z7)


@triton.jit(do_not_specialize=PLAIN)
def fill_each(
    out,
    seeds,
    cols,
    programs,
    start: tl.int64,
    row_stride: tl.int64,
    tensor: tl.uint32,
    KIND: tl.constexpr,
    LANES: tl.constexpr,
):
    """out (seeds, cols) = the noise of one row of a tensor under each seed; row_stride: 0, every row is the same."""
    row = (tl.program_id(0) // programs).to(tl.int64)
    c, o = lanes(tl.program_id(0) % programs, start + row * row_stride, LANES)
    to, seed = out + row * cols, tl.load(seeds + row)
    _fill_lanes(to, c, o, cols, tensor, tl.full((), 0, tl.uint32), seed, KIND)


@triton.jit
def _perturb(w, plus, minus, column, cols, z, scale, FORM: tl.constexpr, PAIR: tl.constexpr):
    mask = (column >= 0) & (column < cols)
    x = load(w, column, mask, FORM)
    d = scale * z
    store(plus, column, mask, nearest(x + d, FORM), FORM)
    if PAIR:
        store(minus, column, mask, nearest(x - d, FORM), FORM)


@triton.jit
def _perturb_lanes(
    w,
    plus,
    minus,
    c,
    o,
    cols,
    tensor,
    seed,
    scale,
    KIND: tl.constexpr,
    FORM: tl.constexpr,
    PAIR: tl.constexpr,
):
    z0, z1, z2, z3, z4, z5, z6, z7 = noise(c, tensor, tl.full((), 0, tl.uint32), seed, KIND)
    _perturb(w, plus, minus, o, cols, z0, scale, FORM, PAIR)
    _perturb(w, plus, minus, o + 16, cols, z1, scale, FORM, PAIR)
    _perturb(w, plus, minus, o + 32, cols, z2, scale, FORM, PAIR)
    _perturb(w, plus, minus, o + 48, cols, z3, scale, FORM, PAIR)
    _perturb(w, plus, minus, o + 64, cols, z4, scale, FORM, PAIR)
    _perturb(w, plus, minus, o + 80, cols, z5, scale, FORM, PAIR)
    _perturb(w, plus, minus, o + 96, cols, z6, scale, FORM, PAIR)
    _perturb(w, plus, minus, o + 112, cols, z7, scale, FORM, PAIR)


@triton.jit(do_not_specialize=[*PLAIN, "height"])
def perturb(
    w,
    w_stride,
    index,
    height,
    plus,
    plus_stride,
    minus,
    minus_stride,
    cols,
    programs,
    start: tl.int64,
    row_stride: tl.int64,
    tensor: tl.uint32,
    seed: tl.uint64,
    scale: tl.float32,
    KIND: tl.constexpr,
    FORM: tl.constexpr,
    PAIR: tl.constexpr,
    INDEXED: tl.constexpr,
    LANES: tl.constexpr,
):
    """plus = nearest(w + scale z), and if PAIR, minus = nearest(w - scale z).

    If INDEXED, of the rows index; those outside 0 to height - 1 come out as NaN, since the host does
    not look at row numbers.
    """
    row = (tl.program_id(0) // programs).to(tl.int64)
    source = row
    if INDEXED:
        source = tl.load(index + row)
        inside = (source >= 0) & (source < height)
        source = tl.where(inside, source, 0)
        scale = tl.where(inside, scale, from_bits(tl.full((), 0x7FC00000, tl.uint32)))
    c, o = lanes(tl.program_id(0) % programs, start + source * row_stride, LANES)
    x, p, m = w + source * w_stride, plus + row * plus_stride, minus + row * minus_stride
    _perturb_lanes(x, p, m, c, o, cols, tensor, seed, scale, KIND, FORM, PAIR)


@triton.jit(do_not_specialize=["seed"])
def perturb_all(
    table,
    owner,
    seed: tl.uint64,
    scale: tl.float32,
    KIND: tl.constexpr,
    FORM: tl.constexpr,
    PAIR: tl.constexpr,
    LANES: tl.constexpr,
):
    """`perturb` of all tensors of a table; owner (programs,) int32: which of them a program works on."""
    _, row, entry, c, o = member(table, owner, LANES)
    w = memory(tl.load(entry + WEIGHT), FORM) + row * tl.load(entry + WEIGHT_STRIDE)
    p = memory(tl.load(entry + PLUS), FORM) + row * tl.load(entry + PLUS_STRIDE)
    m = p
    if PAIR:
        m = memory(tl.load(entry + MINUS), FORM) + row * tl.load(entry + MINUS_STRIDE)
    cols, tensor = tl.load(entry + WIDTH), tl.load(entry + ID).to(tl.uint32)
    _perturb_lanes(w, p, m, c, o, cols, tensor, seed, scale, KIND, FORM, PAIR)


@triton.jit
def _square(column, cols, z):
    # adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even
    v = ((z * 4096.0 + 12582912.0) - 12582912.0).to(tl.int32).to(tl.int64)
    return tl.where((column >= 0) & (column < cols), v * v, 0)


@triton.jit(do_not_specialize=PLAIN)
def sum_of_squares(
    sums,
    cols,
    programs,
    start: tl.int64,
    row_stride: tl.int64,
    tensor: tl.uint32,
    seed: tl.uint64,
    KIND: tl.constexpr,
    LANES: tl.constexpr,
):
    """sums (programs of all rows,) int64 = the sum of round(4096 z)^2 over each program's elements."""
    row = (tl.program_id(0) // programs).to(tl.int64)
    c, o = lanes(tl.program_id(0) % programs, start + row * row_stride, LANES)
    z0, z1, z2, z3, z4, z5, z6, z7 = noise(c, tensor, tl.full((), 0, tl.uint32), seed, KIND)
    total = (
        _square(o, cols, z0)
        + _square(o + 16, cols, z1)
        + _square(o + 32, cols, z2)
        + _square(o + 48, cols, z3)
    )
    total += _square(o + 64, cols, z4) + _square(o + 80, cols, z5)
    total += _square(o + 96, cols, z6) + _square(o + 112, cols, z7)
    tl.store(sums + tl.program_id(0), tl.sum(total, 0))
