"""The stream of `spec` in Triton: lane c of a program works on elements 128 (c // 16) + c % 16 + 16 i, i < 8.

So sixteen lanes share a block of 128 elements, each lane needs one counter, and neighbouring lanes
touch neighbouring memory. Every launch must say `enable_fp_fusion=False`: a fused multiply-add
changes 7% of the values.
"""

# Outside a kernel, Triton's functions only raise: a type checker takes their results for nothing.
# pyright: reportGeneralTypeIssues=false

# pyright: reportArgumentType=false

import triton
import triton.language as tl

GAUSSIAN = tl.constexpr(0)
RADEMACHER = tl.constexpr(1)


@triton.jit
def bits(x):
    return x.to(tl.uint32, bitcast=True)


@triton.jit
def from_bits(u):
    return u.to(tl.float32, bitcast=True)


@triton.jit
def words(counter, tensor, purpose, seed):
    """Four words (lanes,) uint32 of the counters (lanes,) int64; tensor, purpose, seed are scalars."""
    zero = tl.zeros_like(counter).to(tl.uint32)
    low = (counter & 0xFFFFFFFF).to(tl.uint32)
    high = (counter >> 32).to(tl.uint32)
    key = seed.to(tl.uint64)
    k0 = zero + (key & 0xFFFFFFFF).to(tl.uint32)
    k1 = zero + (key >> 32).to(tl.uint32)
    third = zero + tensor.to(tl.uint32)
    return tl.philox_impl(low, high, third, zero + purpose.to(tl.uint32), k0, k1)


@triton.jit
def _box_muller(w):
    f = ((w >> 16) * 2 + 1).to(tl.int32).to(tl.float32)
    i = bits(f) - 0x3F3504F3
    e = i.to(tl.int32, bitcast=True) >> 23
    t = from_bits((i & 0x7FFFFF) + 0x3F3504F3) - 1.0
    p = -0.14662370085716248 * t + 0.22168730199337006
    p = p * t + -0.2535915970802307
    p = p * t + 0.3324827253818512
    p = p * t + -0.4999140501022339
    p = p * t + 1.0000054836273193
    r = tl.sqrt_rn((17 - e).to(tl.float32) * 0.6931471824645996 + (-(t * p)))
    y = (((w & 0x3FFF) * 2 + 1).to(tl.int32) - 16384).to(tl.float32) * 4.79368996e-05
    q = y * y
    s = ((q * 0.008151635527610779 + -0.16662479937076569) * q + 0.9999985694885254) * y
    c = ((q * -0.0013585909036919475 + 0.041655026376247406) * q + -0.4999985694885254) * q + 1.0
    first = from_bits(bits(r * (c - s)) ^ ((w & 0x8000) << 16))
    second = from_bits(bits(r * (c + s)) ^ ((w & 0x4000) << 17))
    return first, second


@triton.jit
def _sign(u, i: tl.constexpr):
    return tl.where(((u >> i) & 1) != 0, -1.0, 1.0)


@triton.jit
def noise(c, tensor, purpose, seed, KIND: tl.constexpr):
    """The noise of the eight elements of each lane c (lanes,) int64: eight (lanes,) float32."""
    if KIND == GAUSSIAN:
        w0, w1, w2, w3 = words(c, tensor, purpose, seed)
        z0, z1 = _box_muller(w0)
        z2, z3 = _box_muller(w1)
        z4, z5 = _box_muller(w2)
        z6, z7 = _box_muller(w3)
    else:  # eight bits of one of the words that sixteen blocks of 128 elements share
        w0, w1, w2, w3 = words((c >> 8) * 16 + (c & 15), tensor, purpose, seed)
        j = (c >> 6) & 3
        w = tl.where(j < 2, tl.where(j == 0, w0, w1), tl.where(j == 2, w2, w3))
        u = w >> (((c >> 4) & 3) * 8).to(tl.uint32)
        z0 = _sign(u, 0)
        z1 = _sign(u, 1)
        z2 = _sign(u, 2)
        z3 = _sign(u, 3)
        z4 = _sign(u, 4)
        z5 = _sign(u, 5)
        z6 = _sign(u, 6)
        z7 = _sign(u, 7)
    return z0, z1, z2, z3, z4, z5, z6, z7
