"""The stream of `spec` in Numba, a block of 512 elements at a time, in the lanes of vector registers."""

from typing import Any

import numpy as np

from mezo.noise.cpu_jit import F, I, Q, U, bits, from_bits, inline

GAUSSIAN, RADEMACHER = 0, 1

# Four Gaussian blocks of the specification, a quarter of a Rademacher block. Larger ones leave the
# memory idle while noise is made (2048: 1.4 times a bare pass, not 1.25), smaller ones waste setup.
BLOCK = 512

_M0, _M1, _S32 = Q(0xD2511F53), Q(0xCD9E8D57), Q(32)
_P0, _P1, _P2 = F(-0.14662370085716248), F(0.22168730199337006), F(-0.2535915970802307)
_P3, _P4, _P5 = F(0.3324827253818512), F(-0.4999140501022339), F(1.0000054836273193)
_LN2, _ANGLE, _ONE = F(0.6931471824645996), F(4.79368996e-05), F(1)
_S0, _S1, _S2 = F(0.008151635527610779), F(-0.16662479937076569), F(0.9999985694885254)
_C0, _C1, _C2 = F(-0.0013585909036919475), F(0.041655026376247406), F(-0.4999985694885254)


@inline
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    a, b, c, d = U(c0), U(c1), U(c2), U(c3)
    for _ in range(10):
        p0 = Q(a) * _M0
        p1 = Q(c) * _M1
        a, b, c, d = U(U(p1 >> _S32) ^ b ^ k0), U(p1), U(U(p0 >> _S32) ^ d ^ k1), U(p0)
        k0 = U(k0 + U(0x9E3779B9))
        k1 = U(k1 + U(0xBB67AE85))
    return a, b, c, d


@inline
def _box_muller(w: Any) -> Any:
    f = F(I(((w >> U(16)) << U(1)) | U(1)))
    i = U(bits(f) - U(0x3F3504F3))
    e = I(I(i) >> I(23))
    t = F(from_bits(U((i & U(0x7FFFFF)) + U(0x3F3504F3))) - _ONE)
    p = F(F(F(F(F(_P0 * t + _P1) * t + _P2) * t + _P3) * t + _P4) * t + _P5)
    r = F(np.sqrt(F(F(I(I(17) - e)) * _LN2 + (-(t * p)))))
    y = F(F(I(I(((w & U(0x3FFF)) << U(1)) | U(1)) - I(16384))) * _ANGLE)
    q = y * y
    s = ((q * _S0 + _S1) * q + _S2) * y
    c = ((q * _C0 + _C1) * q + _C2) * q + _ONE
    first = from_bits(U(bits(F(r * (c - s))) ^ U((w & U(0x8000)) << U(16))))
    second = from_bits(U(bits(F(r * (c + s))) ^ U((w & U(0x4000)) << U(17))))
    return first, second


@inline
def _gaussian(z: Any, block: Any, first: Any, last: Any, tensor: Any, purpose: Any, k0: Any, k1: Any) -> None:
    for b in range(first >> 7, (last + 127) >> 7):
        c = Q(block) * Q(64) + Q(b) * Q(16)
        low, high = U(c), U(c >> _S32)
        v = z[b * 128 : b * 128 + 128]
        for n in range(16):
            w0, w1, w2, w3 = _philox(U(low + U(n)), high, tensor, purpose, k0, k1)
            v[n], v[16 + n] = _box_muller(w0)
            v[32 + n], v[48 + n] = _box_muller(w1)
            v[64 + n], v[80 + n] = _box_muller(w2)
            v[96 + n], v[112 + n] = _box_muller(w3)


@inline
def _sign(w: Any, shift: Any) -> Any:
    return from_bits(U(U(U(w << U(shift)) & U(0x80000000)) | U(0x3F800000)))


@inline
def _rademacher(
    z: Any,
    words: Any,
    fresh: Any,
    block: Any,
    first: Any,
    last: Any,
    tensor: Any,
    purpose: Any,
    k0: Any,
    k1: Any,
) -> None:
    if fresh or (block & 3) == 0:  # the words of four blocks
        c = Q(block >> 2) * Q(16)
        low, high = U(c), U(c >> _S32)
        for n in range(16):
            w0, w1, w2, w3 = _philox(U(low + U(n)), high, tensor, purpose, k0, k1)
            words[n], words[16 + n], words[32 + n], words[48 + n] = w0, w1, w2, w3
    w = words[(block & 3) * 16 : (block & 3) * 16 + 16]
    for b in range(first >> 7, (last + 127) >> 7):
        # Eight bits a turn: a shorter loop body would be unrolled before it could be vectorised.
        v = z[b * 128 : b * 128 + 128]
        for n in range(16):
            u = U(w[n] >> U(b * 8))
            v[n], v[16 + n] = _sign(u, 31), _sign(u, 30)
            v[32 + n], v[48 + n] = _sign(u, 29), _sign(u, 28)
            v[64 + n], v[80 + n] = _sign(u, 27), _sign(u, 26)
            v[96 + n], v[112 + n] = _sign(u, 25), _sign(u, 24)


@inline
def noise(
    z: Any,
    words: Any,
    fresh: Any,
    kind: Any,
    block: Any,
    first: Any,
    last: Any,
    tensor: Any,
    purpose: Any,
    seed: Any,
) -> None:
    """Elements [first, last) of block `block` and perhaps more of it into z, shape (512,).

    `words` (64,) is kept from one block to the next unless `fresh`.
    """
    k0, k1 = U(seed), U(Q(seed) >> _S32)
    if kind == GAUSSIAN:
        _gaussian(z, block, first, last, tensor, purpose, k0, k1)
    else:
        _rademacher(z, words, fresh, block, first, last, tensor, purpose, k0, k1)


@inline
def rounding_bits(r: Any, block: Any, first: Any, last: Any, tensor: Any, seed: Any) -> None:
    """16 random bits for each of elements [first, last) of block `block` into r (512,) uint32."""
    k0, k1 = U(seed), U(Q(seed) >> _S32)
    for b in range(first >> 7, (last + 127) >> 7):
        c = Q(block) * Q(64) + Q(b) * Q(16)
        low, high = U(c), U(c >> _S32)
        v = r[b * 128 : b * 128 + 128]
        for n in range(16):
            w0, w1, w2, w3 = _philox(U(low + U(n)), high, tensor, U(1), k0, k1)
            v[n], v[16 + n] = w0 & U(0xFFFF), w0 >> U(16)
            v[32 + n], v[48 + n] = w1 & U(0xFFFF), w1 >> U(16)
            v[64 + n], v[80 + n] = w2 & U(0xFFFF), w2 >> U(16)
            v[96 + n], v[112 + n] = w3 & U(0xFFFF), w3 >> U(16)
