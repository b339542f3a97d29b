"""The stream of `spec` as Numba kernels: what one thread does to one 2-D piece of a tensor.

A piece arrives as an address, a row stride in bytes and a shape, because boxing arrays costs more than a
small LoRA tensor's noise. The first argument tells the element type: float32, uint16 (the bits of a
bfloat16) or int16 (the bits of a float16). Work goes by blocks of 2048 elements of the global
index, in float32 buffers that stay in the first-level cache; input is read before output is
written, so output may be the input itself.

All jitted functions live in this one file because Numba's disk cache notices a change of the file
that holds a kernel, not of the files its callees are in. `parallel=True` is never used: it opens a
second OpenMP pool, which makes torch's forward passes slow.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic, overload

U, Q, F, I, L = np.uint32, np.uint64, np.float32, np.int32, np.int64

BLOCK = 2048  # elements; one Rademacher block, sixteen Gaussian blocks
GAUSSIAN, RADEMACHER = 0, 1
NEAREST, STOCHASTIC = 0, 1


def _kernel(function: Any) -> Any:
    """Compile on first use and keep the result on disk, where there is a disk to keep it on."""
    options: dict[str, Any] = dict(nogil=True, error_model="numpy", boundscheck=False)
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache folder can be written
        return njit(**options)(function)


_inline = njit(forceinline=True, error_model="numpy", boundscheck=False)


@intrinsic
def _bits(typing: Any, x: Any) -> Any:  # float32 -> its bits
    return types.uint32(types.float32), lambda context, b, sig, args: b.bitcast(args[0], ir.IntType(32))


@intrinsic
def _float(typing: Any, x: Any) -> Any:  # bits -> float32
    return types.float32(types.uint32), lambda context, b, sig, args: b.bitcast(args[0], ir.FloatType())


@intrinsic
def _pointer(typing: Any, address: Any, like: Any) -> Any:  # address -> pointer to elements of like's type
    def code(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.inttoptr(args[0], context.get_value_type(sig.return_type))

    return types.CPointer(like)(types.int64, like), code


# --- the stream --------------------------------------------------------------------------------

_M0, _M1, _S32 = Q(0xD2511F53), Q(0xCD9E8D57), Q(32)
_P0, _P1, _P2 = F(-0.14662370085716248), F(0.22168730199337006), F(-0.2535915970802307)
_P3, _P4, _P5 = F(0.3324827253818512), F(-0.4999140501022339), F(1.0000054836273193)
_LN2, _ANGLE, _ONE = F(0.6931471824645996), F(4.79368996e-05), F(1)
_S0, _S1, _S2 = F(0.008151635527610779), F(-0.16662479937076569), F(0.9999985694885254)
_C0, _C1, _C2 = F(-0.0013585909036919475), F(0.041655026376247406), F(-0.4999985694885254)


@_inline
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    a, b, c, d = U(c0), U(c1), U(c2), U(c3)
    for _ in range(10):
        p0 = Q(a) * _M0
        p1 = Q(c) * _M1
        a, b, c, d = U(U(p1 >> _S32) ^ b ^ k0), U(p1), U(U(p0 >> _S32) ^ d ^ k1), U(p0)
        k0 = U(k0 + U(0x9E3779B9))
        k1 = U(k1 + U(0xBB67AE85))
    return a, b, c, d


@_inline
def _box_muller(w: Any) -> Any:
    f = F(I(((w >> U(16)) << U(1)) | U(1)))
    i = U(_bits(f) - U(0x3F3504F3))
    e = I(I(i) >> I(23))
    t = F(_float(U((i & U(0x7FFFFF)) + U(0x3F3504F3))) - _ONE)
    p = F(F(F(F(F(_P0 * t + _P1) * t + _P2) * t + _P3) * t + _P4) * t + _P5)
    r = F(np.sqrt(F(F(I(I(17) - e)) * _LN2 + (-(t * p)))))
    y = F(F(I(I(((w & U(0x3FFF)) << U(1)) | U(1)) - I(16384))) * _ANGLE)
    q = y * y
    s = ((q * _S0 + _S1) * q + _S2) * y
    c = ((q * _C0 + _C1) * q + _C2) * q + _ONE
    first = _float(U(_bits(F(r * (c - s))) ^ U((w & U(0x8000)) << U(16))))
    second = _float(U(_bits(F(r * (c + s))) ^ U((w & U(0x4000)) << U(17))))
    return first, second


@_inline
def _gaussian(z: Any, block: Any, first: Any, last: Any, tensor: Any, purpose: Any, k0: Any, k1: Any) -> None:
    for b in range(first >> 7, (last + 127) >> 7):
        c = Q(block) * Q(256) + Q(b) * Q(16)
        low, high = U(c), U(c >> _S32)
        v = z[b * 128 : b * 128 + 128]
        for n in range(16):
            w0, w1, w2, w3 = _philox(U(low + U(n)), high, tensor, purpose, k0, k1)
            v[n], v[16 + n] = _box_muller(w0)
            v[32 + n], v[48 + n] = _box_muller(w1)
            v[64 + n], v[80 + n] = _box_muller(w2)
            v[96 + n], v[112 + n] = _box_muller(w3)


@_inline
def _sign(w: Any, shift: Any) -> Any:
    return _float(U(U(U(w << U(shift)) & U(0x80000000)) | U(0x3F800000)))


@_inline
def _rademacher(z: Any, block: Any, first: Any, last: Any, tensor: Any, purpose: Any, k0: Any, k1: Any) -> None:
    words = np.empty((4, 16), np.uint32)
    c = Q(block) * Q(16)
    low, high = U(c), U(c >> _S32)
    for n in range(16):
        words[0, n], words[1, n], words[2, n], words[3, n] = _philox(U(low + U(n)), high, tensor, purpose, k0, k1)
    for b in range(first >> 7, (last + 127) >> 7):
        # Eight bits a turn: a shorter loop body is unrolled before it could be vectorised.
        w, v = words[b >> 2], z[b * 128 : b * 128 + 128]
        shift = U((b & 3) * 8)
        for n in range(16):
            u = U(w[n] >> shift)
            v[n], v[16 + n] = _sign(u, 31), _sign(u, 30)
            v[32 + n], v[48 + n] = _sign(u, 29), _sign(u, 28)
            v[64 + n], v[80 + n] = _sign(u, 27), _sign(u, 26)
            v[96 + n], v[112 + n] = _sign(u, 25), _sign(u, 24)


@_inline
def _noise(z: Any, kind: Any, block: Any, first: Any, last: Any, tensor: Any, purpose: Any, seed: Any) -> None:
    """Elements [first, last) of block `block`, and perhaps more of it, into z (2048,)."""
    k0, k1 = U(seed), U(Q(seed) >> _S32)
    if kind == GAUSSIAN:
        _gaussian(z, block, first, last, tensor, purpose, k0, k1)
    else:
        _rademacher(z, block, first, last, tensor, purpose, k0, k1)


@_inline
def _rounding(r: Any, block: Any, first: Any, last: Any, tensor: Any, seed: Any) -> None:
    """16 random bits for elements [first, last) of block `block` into r (2048,) uint32."""
    k0, k1 = U(seed), U(Q(seed) >> _S32)
    for b in range(first >> 7, (last + 127) >> 7):
        c = Q(block) * Q(256) + Q(b) * Q(16)
        low, high = U(c), U(c >> _S32)
        v = r[b * 128 : b * 128 + 128]
        for n in range(16):
            w0, w1, w2, w3 = _philox(U(low + U(n)), high, tensor, U(1), k0, k1)
            v[n], v[16 + n] = w0 & U(0xFFFF), w0 >> U(16)
            v[32 + n], v[48 + n] = w1 & U(0xFFFF), w1 >> U(16)
            v[64 + n], v[80 + n] = w2 & U(0xFFFF), w2 >> U(16)
            v[96 + n], v[112 + n] = w3 & U(0xFFFF), w3 >> U(16)


# --- element types -----------------------------------------------------------------------------


@_inline
def _load_bf16(h: Any) -> Any:
    return _float(U(U(h) << U(16)))


@_inline
def _load_fp16(h: Any) -> Any:
    u = U(np.uint16(h))
    m = U((u & U(0x7FFF)) << U(13))
    normal = U(m + U(0x38000000))
    subnormal = _bits(F(F(I(u & U(0x3FF))) * F(5.960464477539063e-08)))  # 2^-24
    m = normal if m >= U(0x800000) else subnormal
    m = U(U((u & U(0x7FFF)) << U(13)) | U(0x7F800000)) if (u & U(0x7C00)) == U(0x7C00) else m
    return _float(U(m | ((u & U(0x8000)) << U(16))))


@_inline
def _nearest_fp32(f: Any) -> Any:
    u = _bits(f)
    return _float(U(0x7FC00000)) if (u & U(0x7FFFFFFF)) > U(0x7F800000) else f


@_inline
def _nearest_bf16(f: Any) -> Any:
    u = _bits(f)
    v = U(U(u + U(0x7FFF) + ((u >> U(16)) & U(1))) >> U(16))
    return np.uint16(U(0x7FC0) if (u & U(0x7FFFFFFF)) > U(0x7F800000) else v)


@_inline
def _nearest_fp16(f: Any) -> Any:
    u = _bits(f)
    s = U(u & U(0x80000000))
    m = U(u ^ s)
    subnormal = U(_bits(F(_float(m) + F(0.5))) - U(0x3F000000))  # the sum rounds at 2^-24
    normal = min(U(U(U(m - U(0x38000000)) + U(0xFFF) + ((m >> U(13)) & U(1))) >> U(13)), U(0x7C00))
    v = U((subnormal if m < U(0x38800000) else normal) | (s >> U(16)))
    return np.int16(U(0x7E00) if m > U(0x7F800000) else v)


@_inline
def _stochastic_bf16(f: Any, r: Any) -> Any:
    u = _bits(f)
    s = U(u & U(0x80000000))
    m = U(u ^ s)
    v = U(m + (U(0) if m == U(0x7F800000) else r))
    return np.uint16(U(0x7FC0) if m > U(0x7F800000) else U((v | s) >> U(16)))


@_inline
def _stochastic_fp16(f: Any, r: Any) -> Any:
    u = _bits(f)
    s = U(u & U(0x80000000))
    m = U(u ^ s)
    normal = min(U(U(U(m - U(0x38000000)) + (r >> U(3))) >> U(13)), U(0x7C00))
    x = F(_float(U(m if m < U(0x38800000) else U(0))) * F(16777216.0))  # in units of 2^-24, the last place
    whole = I(x)
    up = F(F(x - F(whole)) * F(65536.0)) >= F(F(65535.5) - F(I(r)))
    subnormal = U(U(whole) + (U(1) if up else U(0)))
    v = U((subnormal if m < U(0x38800000) else normal) | (s >> U(16)))
    return np.int16(U(0x7E00) if m > U(0x7F800000) else v)


def _load(x): ...
def _nearest(f, like): ...
def _stochastic(f, r, like): ...


@overload(_load, inline="always")
def _load_as(x):  # noqa: ANN001, ANN202
    if x == types.uint16:
        return lambda x: _load_bf16(x)
    if x == types.int16:
        return lambda x: _load_fp16(x)
    return lambda x: x


@overload(_nearest, inline="always")
def _nearest_as(f, like):  # noqa: ANN001, ANN202
    if like == types.uint16:
        return lambda f, like: _nearest_bf16(f)
    if like == types.int16:
        return lambda f, like: _nearest_fp16(f)
    return lambda f, like: _nearest_fp32(f)


@overload(_stochastic, inline="always")
def _stochastic_as(f, r, like):  # noqa: ANN001, ANN202
    if like == types.uint16:
        return lambda f, r, like: _stochastic_bf16(f, r)
    if like == types.int16:
        return lambda f, r, like: _stochastic_fp16(f, r)
    return lambda f, r, like: _nearest_fp32(f)


# --- kernels -----------------------------------------------------------------------------------


@_kernel
def fill(out, stride, rows, cols, start, row_stride, tensor, seed, kind, purpose):  # noqa: ANN001, ANN201
    """out (rows, cols) float32 = z."""
    z = np.empty(BLOCK, np.float32)
    for row in range(rows):
        g = start + row * row_stride
        o = carray(_pointer(out + row * stride, F(0)), (cols,))
        for block in range(g >> 11, (g + cols + 2047) >> 11):
            base = (block << 11) - g  # of the block, in columns
            first, last = max(0, -base), min(BLOCK, cols - base)
            _noise(z, kind, block, first, last, U(tensor), U(purpose), seed)
            os, zs = o[base + first : base + last], z[first:last]
            for i in range(last - first):
                os[i] = zs[i]


@_kernel
def perturb(like, w, w_stride, plus, plus_stride, minus, minus_stride, rows, cols, start, row_stride, tensor, seed, scale, kind):  # noqa: ANN001, ANN201, E501
    """plus = nearest(w + scale z), and, unless its address is 0, minus = nearest(w - scale z)."""
    z = np.empty(BLOCK, np.float32)
    y = np.empty(BLOCK, np.float32)
    a = F(scale)
    for row in range(rows):
        g = start + row * row_stride
        x = carray(_pointer(w + row * w_stride, like), (cols,))
        p = carray(_pointer(plus + row * plus_stride, like), (cols,))
        m = carray(_pointer(minus + row * minus_stride, like), (cols,))
        for block in range(g >> 11, (g + cols + 2047) >> 11):
            base = (block << 11) - g
            first, last = max(0, -base), min(BLOCK, cols - base)
            _noise(z, kind, block, first, last, U(tensor), U(0), seed)
            xs, ps, zs, n = x[base + first : base + last], p[base + first : base + last], z[first:last], last - first
            if minus:
                ms = m[base + first : base + last]
                for i in range(n):
                    v = F(a * zs[i])
                    u = _load(xs[i])
                    y[i] = F(u - v)
                    zs[i] = F(u + v)
                for i in range(n):
                    ms[i] = _nearest(y[i], like)
            else:
                for i in range(n):
                    zs[i] = F(_load(xs[i]) + F(a * zs[i]))
            for i in range(n):
                ps[i] = _nearest(zs[i], like)


@_kernel
def update(like, w, w_stride, rows, cols, start, row_stride, tensor, seeds, coefficients, decay, kind, rounding, rounding_seed):  # noqa: ANN001, ANN201, E501
    """w = round(w decay + a_1 z_1 + a_2 z_2 ...), summed in this order."""
    z = np.empty(BLOCK, np.float32)
    y = np.empty(BLOCK, np.float32)
    r = np.empty(BLOCK, np.uint32)
    keep = F(decay)
    for row in range(rows):
        g = start + row * row_stride
        x = carray(_pointer(w + row * w_stride, like), (cols,))
        for block in range(g >> 11, (g + cols + 2047) >> 11):
            base = (block << 11) - g
            first, last = max(0, -base), min(BLOCK, cols - base)
            xs, zs, n = x[base + first : base + last], z[first:last], last - first
            for i in range(n):
                y[i] = F(_load(xs[i]) * keep)
            for k in range(len(seeds)):
                _noise(z, kind, block, first, last, U(tensor), U(0), seeds[k])
                a = coefficients[k]
                for i in range(n):
                    y[i] = F(y[i] + F(a * zs[i]))
            if rounding == STOCHASTIC:
                _rounding(r, block, first, last, U(tensor), rounding_seed)
                rs = r[first:last]
                for i in range(n):
                    xs[i] = _stochastic(y[i], rs[i], like)
            else:
                for i in range(n):
                    xs[i] = _nearest(y[i], like)


@_kernel
def sum_of_squares(rows, cols, start, row_stride, tensor, seed, kind):  # noqa: ANN001, ANN201
    """The sum of round(4096 z)^2, exact: at most 2^29 each, so no tensor overflows 64 bits."""
    z = np.empty(BLOCK, np.float32)
    total = L(0)
    for row in range(rows):
        g = start + row * row_stride
        for block in range(g >> 11, (g + cols + 2047) >> 11):
            base = (block << 11) - g
            first, last = max(0, -base), min(BLOCK, cols - base)
            _noise(z, kind, block, first, last, U(tensor), U(0), seed)
            for i in range(first, last):
                # adding and taking away 1.5 * 2^23 rounds to the nearest even integer
                v = L(I(F(F(F(z[i] * F(4096.0)) + F(12582912.0)) - F(12582912.0))))
                total += v * v
    return total
