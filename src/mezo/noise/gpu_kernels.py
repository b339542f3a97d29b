"""What one Triton program does: LANES lanes of eight elements each, of one row.

w, plus, minus, out: pointers to float32 or, for 16-bit types, int16; *_stride: elements from one row
to the next. start, row_stride, tensor: the `Where`. programs: how many cover a row.
"""

# Outside a kernel, Triton's functions only raise: a type checker takes their results for nothing.
# pyright: reportGeneralTypeIssues=false

# pyright: reportInvalidTypeForm=false

import triton
import triton.language as tl

from mezo.noise.gpu_formats import load, nearest, stochastic, store
from mezo.noise.gpu_stream import noise, words

_PLAIN = ["tensor", "seed", "start", "row_stride", "cols", "programs"]


@triton.jit
def _lanes(piece, g, LANES: tl.constexpr):
    """(counters of the lanes, column of each lane's first element), int64, for a row that starts at index g."""
    c = (g >> 7) * 16 + piece.to(tl.int64) * LANES + tl.arange(0, LANES)
    return c, (c >> 4) * 128 + (c & 15) - g


@triton.jit
def _fill(out, column, cols, z):
    tl.store(out + column, z, mask=(column >= 0) & (column < cols))


@triton.jit(do_not_specialize=[*_PLAIN, "purpose"])
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
    c, o = _lanes(tl.program_id(0) % programs, start + row * row_stride, LANES)
    z0, z1, z2, z3, z4, z5, z6, z7 = noise(c, tensor, purpose, seed, KIND)
    to = out + row * out_stride
    _fill(to, o, cols, z0)
    _fill(to, o + 16, cols, z1)
    _fill(to, o + 32, cols, z2)
    _fill(to, o + 48, cols, z3)
    _fill(to, o + 64, cols, z4)
    _fill(to, o + 80, cols, z5)
    _fill(to, o + 96, cols, z6)
    _fill(to, o + 112, cols, z7)


@triton.jit
def _perturb(w, plus, minus, column, cols, z, scale, FORM: tl.constexpr, PAIR: tl.constexpr):
    mask = (column >= 0) & (column < cols)
    x = load(w, column, mask, FORM)
    d = scale * z
    store(plus, column, mask, nearest(x + d, FORM), FORM)
    if PAIR:
        store(minus, column, mask, nearest(x - d, FORM), FORM)


@triton.jit(do_not_specialize=_PLAIN)
def perturb(
    w,
    w_stride,
    index,
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
    """plus = nearest(w + scale z), and if PAIR, minus = nearest(w - scale z); if INDEXED, of the rows index."""
    row = (tl.program_id(0) // programs).to(tl.int64)
    source = tl.load(index + row) if INDEXED else row
    c, o = _lanes(tl.program_id(0) % programs, start + source * row_stride, LANES)
    z0, z1, z2, z3, z4, z5, z6, z7 = noise(c, tensor, tl.full((), 0, tl.uint32), seed, KIND)
    x, p, m = w + source * w_stride, plus + row * plus_stride, minus + row * minus_stride
    _perturb(x, p, m, o, cols, z0, scale, FORM, PAIR)
    _perturb(x, p, m, o + 16, cols, z1, scale, FORM, PAIR)
    _perturb(x, p, m, o + 32, cols, z2, scale, FORM, PAIR)
    _perturb(x, p, m, o + 48, cols, z3, scale, FORM, PAIR)
    _perturb(x, p, m, o + 64, cols, z4, scale, FORM, PAIR)
    _perturb(x, p, m, o + 80, cols, z5, scale, FORM, PAIR)
    _perturb(x, p, m, o + 96, cols, z6, scale, FORM, PAIR)
    _perturb(x, p, m, o + 112, cols, z7, scale, FORM, PAIR)


@triton.jit
def _decayed(w, column, cols, decay, FORM: tl.constexpr):
    return load(w, column, (column >= 0) & (column < cols), FORM) * decay


@triton.jit
def _rounded(w, column, cols, x, r, FORM: tl.constexpr, STOCHASTIC: tl.constexpr):
    v = stochastic(x, r, FORM) if STOCHASTIC else nearest(x, FORM)
    store(w, column, (column >= 0) & (column < cols), v, FORM)


@triton.jit(do_not_specialize=[*_PLAIN, "directions", "rounding_seed"])
def update(
    w,
    w_stride,
    cols,
    programs,
    start: tl.int64,
    row_stride: tl.int64,
    tensor: tl.uint32,
    seeds,
    coefficients,
    directions,
    decay: tl.float32,
    rounding_seed: tl.uint64,
    KIND: tl.constexpr,
    FORM: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    LANES: tl.constexpr,
):
    """w = round(w decay + a_1 z_1 + a_2 z_2 ...); seeds (directions,) int64, coefficients (directions,) float32."""
    row = (tl.program_id(0) // programs).to(tl.int64)
    c, o = _lanes(tl.program_id(0) % programs, start + row * row_stride, LANES)
    w += row * w_stride
    x0 = _decayed(w, o, cols, decay, FORM)
    x1 = _decayed(w, o + 16, cols, decay, FORM)
    x2 = _decayed(w, o + 32, cols, decay, FORM)
    x3 = _decayed(w, o + 48, cols, decay, FORM)
    x4 = _decayed(w, o + 64, cols, decay, FORM)
    x5 = _decayed(w, o + 80, cols, decay, FORM)
    x6 = _decayed(w, o + 96, cols, decay, FORM)
    x7 = _decayed(w, o + 112, cols, decay, FORM)
    for k in range(directions):
        a = tl.load(coefficients + k)
        seed = tl.load(seeds + k)
        z0, z1, z2, z3, z4, z5, z6, z7 = noise(c, tensor, tl.full((), 0, tl.uint32), seed, KIND)
        x0 += a * z0
        x1 += a * z1
        x2 += a * z2
        x3 += a * z3
        x4 += a * z4
        x5 += a * z5
        x6 += a * z6
        x7 += a * z7
    r0, r1, r2, r3 = words(
        c, tensor, tl.full((), 1, tl.uint32), rounding_seed
    )  # unused, and dropped, if nearest
    _rounded(w, o, cols, x0, r0 & 0xFFFF, FORM, STOCHASTIC)
    _rounded(w, o + 16, cols, x1, r0 >> 16, FORM, STOCHASTIC)
    _rounded(w, o + 32, cols, x2, r1 & 0xFFFF, FORM, STOCHASTIC)
    _rounded(w, o + 48, cols, x3, r1 >> 16, FORM, STOCHASTIC)
    _rounded(w, o + 64, cols, x4, r2 & 0xFFFF, FORM, STOCHASTIC)
    _rounded(w, o + 80, cols, x5, r2 >> 16, FORM, STOCHASTIC)
    _rounded(w, o + 96, cols, x6, r3 & 0xFFFF, FORM, STOCHASTIC)
    _rounded(w, o + 112, cols, x7, r3 >> 16, FORM, STOCHASTIC)


@triton.jit
def _square(column, cols, z):
    # adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even
    v = ((z * 4096.0 + 12582912.0) - 12582912.0).to(tl.int32).to(tl.int64)
    return tl.where((column >= 0) & (column < cols), v * v, 0)


@triton.jit(do_not_specialize=_PLAIN)
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
    c, o = _lanes(tl.program_id(0) % programs, start + row * row_stride, LANES)
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
