"""Matched rounding in Triton (`spec.moved`). Exponents stay where a float32 has them."""

# Outside a kernel, Triton's functions only raise: a type checker takes their results for nothing.
# pyright: reportGeneralTypeIssues=false

# pyright: reportArgumentType=false

import triton
import triton.language as tl

from mezo.noise.gpu_formats import BFLOAT16, nearest
from mezo.noise.gpu_stream import bits, from_bits
from mezo.noise.matched import LEVELS

_LAST = tl.constexpr(LEVELS - 1)


@triton.jit
def _limit(exponent, first, start, second, slope, rest):
    """T^2 (`matched.Matched`), and before the first exponent no less than there."""
    line = exponent.to(tl.float32) * (slope * 1.1920928955078125e-07) + rest  # 2^-23
    return tl.maximum(tl.where(exponent == ((first + 1) << 23), second, line), start)


@triton.jit
def passes_last(u, first, start, second, slope, rest):
    """Whether an update of this magnitude passes the last threshold; then its rounding bits count."""
    return u * u >= _limit((first + _LAST) << 23, first, start, second, slope, rest)


@triton.jit
def matched(x, u, r, first, start, second, slope, rest, FORM: tl.constexpr):
    """The bits (uint32) of x + u in a 16-bit type, for x of the type; r: 16 random bits (uint32)."""
    exponent = (bits(x + u) & 0x7F800000).to(tl.int32)
    if FORM == BFLOAT16:
        s = from_bits((exponent - (7 << 23)).to(tl.uint32, bitcast=True))  # of no use below 2^-119, nor used
    else:
        exponent = tl.maximum(exponent, 113 << 23)  # 2^-14, the smallest normal number
        s = from_bits((exponent - (10 << 23)).to(tl.uint32, bitcast=True))
    last = tl.minimum(exponent, (first + _LAST) << 23)
    share = from_bits((0x47800000 - (exponent - last)).to(tl.uint32, bitcast=True))  # 2^16 / 2^depth
    large = (r.to(tl.int32).to(tl.float32) + 0.5 < share) & (
        u * u >= _limit(last, first, start, second, slope, rest)
    )
    size = tl.abs(u)
    size = tl.where(large & (size < s), s, size)
    return nearest(x + from_bits(bits(size) | (bits(u) & 0x80000000)), FORM)
