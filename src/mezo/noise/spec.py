"""The noise stream, written for reading: NumPy. The kernels agree with it bit for bit, or are wrong.

Every random bit is a word of Philox4x32-10 (Salmon et al. 2011). The key is the 64-bit seed (low
word first). The counter is (c_lo, c_hi, tensor_id, purpose), where purpose is 0 for perturbations,
1 for rounding bits, 2 for initialisation, 3 for the derivation of seeds. `e` is the index of an
element in the whole, unsharded tensor; `word(j, c)` is word j (0 to 3) of counter c.

Gaussian    e = 128 B + 32 j + 16 p + l   is Box-Muller half p (0 or 1) of word(j, 16 B + l)
Rademacher  e = 2048 B + 512 j + 16 b + l is -1 if bit b of word(j, 16 B + l) is set, else +1
rounding    e = 128 B + 32 j + 16 p + l   has 16 bits: half p (0 low, 1 high) of word(j, 16 B + l)

So a run of 16 elements takes the same word of 16 neighbouring counters: 16 lanes of one vector
register, and nothing is ever transposed.

Box-Muller turns one 32-bit word into two normals. The upper 16 bits give the radius
sqrt(-2 ln u), the lower 14 an angle in [-pi/4, pi/4], bits 15 and 14 two signs. Logarithm, sine and
cosine are polynomials in float32, built only from operations that IEEE 754 rounds correctly
(conversion of small integers, +, -, *, sqrt), each rounded by itself: a fused multiply-add anywhere
changes 7% of the values. Over all 2^32 words: mean 0, variance 0.9999964, kurtosis 2.99982,
Kolmogorov-Smirnov distance to the normal 6e-7, largest magnitude 4.855.

Arithmetic on weights is float32, multiply and add rounded separately. 16-bit weights are rounded to
nearest even, or stochastically: of the two neighbours of x the one away from zero if the dropped
fraction, in units of 2^-16, is at least 65535.5 less the 16 bits. That is exactly unbiased wherever
at most 16 bits are dropped, and within 2^-17 of a unit in the last place for the smaller subnormal
results of float16. Infinities stay. Past the largest finite value the next neighbour is infinity.
A NaN is stored as the quiet NaN with the sign bit clear and no payload, since the payload that an
operation returns depends on the processor.

Matched rounding of an update with Gaussian noise rounds the decayed weight stochastically, and what
the update makes of it to nearest; where that moves nothing, it moves the weight to its neighbour all
the same if the update is among the largest (`mezo.noise.matched` has the thresholds, and why). Of
what passes the last threshold, it takes those whose 16 bits are below 2^15, 2^14 ... With Rademacher
noise, all of one magnitude, and where `matched` gives no thresholds, it is stochastic rounding.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mezo.noise.matched import BIAS, LEVELS, Matched
from mezo.noise.seeds import ROUNDING

U, F = np.uint32, np.float32
Words = NDArray[np.uint32]
Floats = NDArray[np.float32]

BFLOAT16 = (7, -126)  # bits of the significand that are stored; exponent of the smallest normal number
FLOAT16 = (10, -14)

VERSION = 1  # a run's trajectory names the stream it was made with; any change of a bit raises this


def philox(counter: NDArray[np.uint64], tensor_id: int, purpose: int, seed: int) -> list[Words]:
    """(n,) 64-bit counters -> four (n,) words."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a, b = counter & mask, counter >> half
    c, d = np.full_like(a, tensor_id), np.full_like(a, purpose)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b = (p1 >> half) ^ b ^ np.uint64(k0), p1 & mask
        c, d = (p0 >> half) ^ d ^ np.uint64(k1), p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [word.astype(U) for word in (a, b, c, d)]


def box_muller(w: Words) -> tuple[Floats, Floats]:
    """(n,) words -> two (n,) arrays of standard normals."""
    f = ((w >> U(16)) * U(2) + U(1)).astype(F)  # odd, below 2^17: u = f / 2^17
    i = f.view(U) - U(0x3F3504F3)  # f = 2^e (1 + t), sqrt(1/2) <= 1 + t < sqrt(2)
    e = i.view(np.int32) >> 23
    t = ((i & U(0x7FFFFF)) + U(0x3F3504F3)).view(F) - F(1)
    p = F(-0.14662370085716248)  # ln(1 + t) / t
    for k in (
        0.22168730199337006,
        -0.2535915970802307,
        0.3324827253818512,
        -0.4999140501022339,
        1.0000054836273193,
    ):
        p = p * t + F(k)
    # -2 ln u without its factor 2, which becomes the sqrt(2) of cos -+ sin below
    r = np.sqrt((17 - e).astype(F) * F(0.6931471824645996) + (-(t * p)))
    y = (((w & U(0x3FFF)) * U(2) + U(1)).astype(np.int32) - 16384).astype(F) * F(4.79368996e-05)
    q = y * y
    s = ((q * F(0.008151635527610779) + F(-0.16662479937076569)) * q + F(0.9999985694885254)) * y
    c = (q * F(-0.0013585909036919475) + F(0.041655026376247406)) * q + F(-0.4999985694885254)
    c = c * q + F(1)
    first = (r * (c - s)).view(U) ^ ((w & U(0x8000)) << U(16))
    second = (r * (c + s)).view(U) ^ ((w & U(0x4000)) << U(17))
    return first.view(F), second.view(F)


def noise(
    index: NDArray[np.int64], tensor_id: int, seed: int, kind: str = "gaussian", purpose: int = 0
) -> Floats:
    """The noise of the elements `index` (any shape) of a tensor."""
    e = index.astype(np.uint64).reshape(-1)
    lane = e & np.uint64(15)
    if kind == "gaussian":
        words = np.stack(philox((e >> np.uint64(7)) * np.uint64(16) + lane, tensor_id, purpose, seed))
        j, p = (e >> np.uint64(5)) & np.uint64(3), (e >> np.uint64(4)) & np.uint64(1)
        w = np.take_along_axis(words, j[None].astype(np.int64), 0)[0]
        first, second = box_muller(w)
        return np.where(p == 0, first, second).reshape(index.shape)
    words = np.stack(philox((e >> np.uint64(11)) * np.uint64(16) + lane, tensor_id, purpose, seed))
    j, b = (e >> np.uint64(9)) & np.uint64(3), (e >> np.uint64(4)) & np.uint64(31)
    w = np.take_along_axis(words, j[None].astype(np.int64), 0)[0]
    return np.where((w >> b.astype(U)) & U(1), F(-1), F(1)).reshape(index.shape)


def rounding_bits(index: NDArray[np.int64], tensor_id: int, seed: int) -> Words:
    """The 16 rounding bits of the elements `index` (any shape), as integers below 65536."""
    e = index.astype(np.uint64).reshape(-1)
    counter = (e >> np.uint64(7)) * np.uint64(16) + (e & np.uint64(15))
    words = np.stack(philox(counter, tensor_id, ROUNDING, seed))
    j, p = (e >> np.uint64(5)) & np.uint64(3), (e >> np.uint64(4)) & np.uint64(1)
    w = np.take_along_axis(words, j[None].astype(np.int64), 0)[0]
    return np.where(p == 0, w & U(0xFFFF), w >> U(16)).reshape(index.shape)


def rounded(x: Floats, form: tuple[int, int], bits: Words | None = None) -> Floats:
    """float32 x -> values of a 16-bit format, as float32: to nearest even, or stochastically by `bits`."""
    stored, smallest = form
    finite = np.where(np.isfinite(x), x, F(0))
    a = np.abs(finite).astype(np.float64)  # everything below is exact in float64
    unit = np.ldexp(1.0, np.maximum(np.frexp(a)[1] - 1, smallest) - stored)  # in the last place
    below, fraction = np.floor(a / unit), a / unit % 1.0
    if bits is None:
        up = (fraction > 0.5) | ((fraction == 0.5) & (below % 2 == 1))
    else:
        up = fraction * 65536 >= 65535.5 - bits
    value = (below + up) * unit
    largest = 65504.0 if form == FLOAT16 else float.fromhex("0x1.fep127")
    value = np.copysign(np.where(value > largest, np.inf, value), finite).astype(F)
    return np.where(np.isfinite(x), value, np.where(np.isnan(x), F(np.nan), x))


def moved(x: Floats, u: Floats, form: tuple[int, int], bits: Words, by: Matched) -> Floats:
    """x + u for values x of a 16-bit format, as float32: with matched rounding, except for decay."""
    exponent = np.maximum(((x + u).view(np.int32) >> 23) & 0xFF, form[1] + BIAS)
    depth = np.maximum(exponent - (by.first + LEVELS - 1), 0)  # binades past the last threshold
    limit = (exponent - depth).astype(F) * F(by.slope) + F(by.rest)
    limit = np.where(exponent == by.first + 1, F(by.second), limit)
    limit = np.where(exponent == by.first, F(by.start), limit)
    large = (exponent >= by.first) & (u * u >= limit) & (bits < 65536 >> np.minimum(depth, 17))
    s = np.ldexp(F(1), exponent - BIAS - form[0])  # how far values are apart
    return rounded(x + np.where(large & (np.abs(u) < s), np.copysign(s, u), u), form)


def updated(
    x: Floats,
    index: NDArray[np.int64],
    tensor_id: int,
    seeds: Sequence[int],
    coefficients: Sequence[float],
    *,
    decay: float = 1.0,
    kind: str = "gaussian",
) -> Floats:
    """x * decay + a_1 z_1 + a_2 z_2 ..., before it is rounded to the format of the weights.

    For matched rounding x is 0: `moved` adds this to the decayed weight.
    """
    total: Floats = np.multiply(x, F(decay), dtype=F)
    for seed, a in zip(seeds, coefficients, strict=True):
        total += F(a) * noise(index, tensor_id, seed, kind)
    return total
