"""Element types in Triton, 16-bit ones as int16 memory, converted in integers.

Triton's own conversions are not used: its interpreter truncates where a GPU rounds, and NaNs differ.
"""

import triton
import triton.language as tl

from mezo.noise.gpu_stream import bits, from_bits

FLOAT32 = tl.constexpr(0)
BFLOAT16 = tl.constexpr(1)
FLOAT16 = tl.constexpr(2)


@triton.jit
def value(u, FORM: tl.constexpr):
    """The value of the bits u (uint32) of a 16-bit type, as float32."""
    if FORM == BFLOAT16:
        x = from_bits(u << 16)
    else:
        m = (u & 0x7FFF) << 13
        subnormal = bits((u & 0x3FF).to(tl.int32).to(tl.float32) * 5.960464477539063e-08)  # 2^-24
        m = tl.where(m >= 0x800000, m + 0x38000000, subnormal)
        m = tl.where((u & 0x7C00) == 0x7C00, ((u & 0x7FFF) << 13) | 0x7F800000, m)
        x = from_bits(m | ((u & 0x8000) << 16))
    return x


@triton.jit
def load(pointer, offset, mask, FORM: tl.constexpr):
    """The values at pointer + offset, as float32; 0 where not mask."""
    h = tl.load(pointer + offset, mask=mask, other=0)
    return h if FORM == FLOAT32 else value(h.to(tl.uint16, bitcast=True).to(tl.uint32), FORM)


@triton.jit
def nearest(x, FORM: tl.constexpr):
    """float32 -> the bits (uint32) of the nearest value of the type, ties to even."""
    u = bits(x)
    s = u & 0x80000000
    m = u ^ s
    if FORM == FLOAT32:
        v = tl.where(m > 0x7F800000, 0x7FC00000, u)
    elif FORM == BFLOAT16:
        v = tl.where(m > 0x7F800000, 0x7FC0, (u + 0x7FFF + ((u >> 16) & 1)) >> 16)
    else:
        subnormal = bits(from_bits(m) + 0.5) - 0x3F000000  # the sum rounds at 2^-24
        normal = (m - 0x38000000 + 0xFFF + ((m >> 13) & 1)) >> 13
        v = tl.where(m < 0x38800000, subnormal, tl.minimum(normal, 0x7C00)) | (s >> 16)
        v = tl.where(m > 0x7F800000, 0x7E00, v)
    return v


@triton.jit
def stochastic(x, r, FORM: tl.constexpr):
    """float32 -> the bits (uint32) of one of its neighbours in a 16-bit type; r: 16 random bits (uint32)."""
    u = bits(x)
    s = u & 0x80000000
    m = u ^ s
    if FORM == BFLOAT16:
        v = ((m + tl.where(m == 0x7F800000, 0, r)) | s) >> 16
        v = tl.where(m > 0x7F800000, 0x7FC0, v)
    else:
        normal = (m - 0x38000000 + (r >> 3)) >> 13
        small = from_bits(tl.where(m < 0x38800000, m, 0)) * 16777216.0  # in units of 2^-24, the last place
        whole = small.to(tl.int32)
        up = (small - whole.to(tl.float32)) * 65536.0 >= 65535.5 - r.to(tl.int32).to(tl.float32)
        subnormal = whole.to(tl.uint32) + up.to(tl.uint32)
        v = tl.where(m < 0x38800000, subnormal, tl.minimum(normal, 0x7C00)) | (s >> 16)
        v = tl.where(m > 0x7F800000, 0x7E00, v)
    return v


@triton.jit
def store(pointer, offset, mask, v, FORM: tl.constexpr):
    """The bits v (uint32) of values of the type to pointer + offset."""
    if FORM == FLOAT32:
        tl.store(pointer + offset, from_bits(v.to(tl.uint32)), mask=mask)
    else:
        tl.store(pointer + offset, v.to(tl.uint16).to(tl.int16, bitcast=True), mask=mask)
