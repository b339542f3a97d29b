"""float16 in Numba: the processor's own conversions, three times as fast, or integers where it has none.

LLVM would replace conversions that are missing by calls of functions that are not there, and end the
process. NaNs are made equal by hand, since processors differ in what they keep of them.
"""

from typing import Any

import numpy as np
from numba.core.registry import cpu_target

from mezo.noise.cpu_jit import F, I, U, bits, from_bits, from_half, inline, to_half


def _converts() -> bool:
    """Whether the processor that Numba compiles for converts float16; kept kernels are kept for one processor."""
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
