"""Element types in Numba: float32, uint16 (the bits of a bfloat16), int16 (the bits of a float16).

`load(x)` is exact. `nearest(f, like)` and `stochastic(f, r, like)` round a float32 to the type of
`like`. Written in integers but for float16 (below), since rounding instructions differ in what
they do with NaN, and not every processor has them.
"""

from typing import Any

import numpy as np
from numba import types
from numba.core.registry import cpu_target
from numba.extending import overload

from mezo.noise.cpu_jit import F, I, U, bits, from_bits, from_half, inline, to_half


def _converts() -> bool:
    """Whether the processor that Numba compiles for converts float16, three times as fast as integers do.

    LLVM would replace missing conversions by functions that do not exist, and end the process.
    """
    context: Any = cpu_target.target_context
    system, _, features = context.codegen().magic_tuple()
    return "+f16c" in features.split(",") or system.startswith(("aarch64", "arm64"))


@inline
def _load_by_hand(h: Any) -> Any:
    u = U(np.uint16(h))
    m = U((u & U(0x7FFF)) << U(13))
    normal = U(m + U(0x38000000))
    subnormal = bits(F(F(I(u & U(0x3FF))) * F(5.960464477539063e-08)))  # 2^-24
    m = normal if m >= U(0x800000) else subnormal
    m = U(U((u & U(0x7FFF)) << U(13)) | U(0x7F800000)) if (u & U(0x7C00)) == U(0x7C00) else m
    return from_bits(U(m | ((u & U(0x8000)) << U(16))))


@inline
def _nearest_by_hand(f: Any) -> Any:
    u = bits(f)
    s = U(u & U(0x80000000))
    m = U(u ^ s)
    subnormal = U(bits(F(from_bits(m) + F(0.5))) - U(0x3F000000))  # the sum rounds at 2^-24
    normal = min(U(U(U(m - U(0x38000000)) + U(0xFFF) + ((m >> U(13)) & U(1))) >> U(13)), U(0x7C00))
    v = U((subnormal if m < U(0x38800000) else normal) | (s >> U(16)))
    return np.int16(U(0x7E00) if m > U(0x7F800000) else v)


@inline
def _nearest(f: Any) -> Any:
    return np.int16(0x7E00) if f != f else to_half(f)


load_fp16: Any = from_half if _converts() else _load_by_hand
nearest_fp16: Any = _nearest if _converts() else _nearest_by_hand


@inline
def _load_bf16(h: Any) -> Any:
    return from_bits(U(U(h) << U(16)))


@inline
def _nearest_fp32(f: Any) -> Any:
    return from_bits(U(0x7FC00000)) if f != f else f


@inline
def _nearest_bf16(f: Any) -> Any:
    u = bits(f)
    v = U(U(u + U(0x7FFF) + ((u >> U(16)) & U(1))) >> U(16))
    return np.uint16(U(0x7FC0) if f != f else v)


@inline
def _stochastic_bf16(f: Any, r: Any) -> Any:
    u = bits(f)
    s = U(u & U(0x80000000))
    m = U(u ^ s)
    v = U(m + (U(0) if m == U(0x7F800000) else r))
    return np.uint16(U(0x7FC0) if m > U(0x7F800000) else U((v | s) >> U(16)))


@inline
def _stochastic_fp16(f: Any, r: Any) -> Any:
    u = bits(f)
    s = U(u & U(0x80000000))
    m = U(u ^ s)
    normal = min(U(U(U(m - U(0x38000000)) + (r >> U(3))) >> U(13)), U(0x7C00))
    x = F(from_bits(U(m if m < U(0x38800000) else U(0))) * F(16777216.0))  # in units of 2^-24, the last place
    whole = I(x)
    up = F(F(x - F(whole)) * F(65536.0)) >= F(F(65535.5) - F(I(r)))
    subnormal = U(U(whole) + (U(1) if up else U(0)))
    v = U((subnormal if m < U(0x38800000) else normal) | (s >> U(16)))
    return np.int16(U(0x7E00) if m > U(0x7F800000) else v)


def load(x: Any) -> Any:
    """The value of x, as a float32."""


def nearest(f: Any, like: Any) -> Any:
    """float32 f to the nearest value of the type of `like`, ties to even."""


def stochastic(f: Any, r: Any, like: Any) -> Any:
    """float32 f to one of its two neighbours, upwards if the dropped fraction and r / 2^16 reach 1."""


def binade(f: Any, like: Any) -> Any:
    """The exponent bits (int32) of the float32 f, of values of the type that are as far apart as those at f."""


def spacing(exponent: Any, like: Any) -> Any:
    """How far values of the type of `like` are apart where float32 has these exponent bits, as a float32.

    No positive number where that is not a normal float32.
    """


# Numba compares the parameters below with those of the lambdas, which cannot be annotated.


@overload(load, inline="always")
def _load_as(x):
    if x == types.uint16:
        return lambda x: _load_bf16(x)
    if x == types.int16:
        return lambda x: load_fp16(x)
    return lambda x: x


@overload(nearest, inline="always")
def _nearest_as(f, like):
    if like == types.uint16:
        return lambda f, like: _nearest_bf16(f)
    if like == types.int16:
        return lambda f, like: nearest_fp16(f)
    return lambda f, like: _nearest_fp32(f)


@overload(stochastic, inline="always")
def _stochastic_as(f, r, like):
    if like == types.uint16:
        return lambda f, r, like: _stochastic_bf16(f, r)
    if like == types.int16:
        return lambda f, r, like: _stochastic_fp16(f, r)
    return lambda f, r, like: _nearest_fp32(f)


@overload(binade, inline="always")
def _binade_as(f, like):
    if like == types.int16:
        return lambda f, like: max(I(bits(f) & U(0x7F800000)), I(113 << 23))  # 2^-14, the smallest normal
    return lambda f, like: I(bits(f) & U(0x7F800000))


@overload(spacing, inline="always")
def _spacing_as(exponent, like):
    if like == types.uint16:
        return lambda exponent, like: from_bits(U(exponent - I(7 << 23)))
    if like == types.int16:
        return lambda exponent, like: from_bits(U(exponent - I(10 << 23)))
    return lambda exponent, like: F(0)
