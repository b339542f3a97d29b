"""Matched rounding in Numba (`spec.moved`), a block at a time. Exponents stay where a float32 has them."""

from typing import Any, Final

from numba import carray  # pyright: ignore[reportPrivateImportUsage]

from mezo.noise.cpu_formats import binade, load, nearest, spacing
from mezo.noise.cpu_jit import F, I, U, bits, from_bits, inline, pointer
from mezo.noise.matched import LEVELS

_MAGNITUDE: Final = U(0x7FFFFFFF)
_ONE: Final = I(1 << 23)  # an exponent of one
_LAST: Final = I((LEVELS - 1) << 23)
_ALL: Final = I(0x47800000)  # the bits of 2^16


@inline
def thresholds(address: Any) -> Any:
    """(first, start, second, slope, rest) of five float32, a `matched.Matched`."""
    v = carray(pointer(address, F(0)), (5,))
    return I(I(v[0]) << I(23)), v[1], v[2], F(v[3] * F(2.0**-23)), v[4]


@inline
def _limit(exponent: Any, by: Any) -> Any:
    """T^2, and before the first exponent no less than there."""
    first, start, second, slope, rest = by
    line = F(F(F(exponent) * slope) + rest)  # at the first exponent below start, at the next above
    later = second if exponent == I(first + _ONE) else line
    return start if later < start else later


@inline
def _moved(w: Any, u: Any, large: Any, s: Any, like: Any) -> Any:
    """w + u to nearest, but by s at least if large."""
    size = from_bits(U(bits(u) & _MAGNITUDE))
    larger = s if size < s else size
    size = larger if large else size
    return nearest(F(w + from_bits(U(bits(size) | U(bits(u) & U(~_MAGNITUDE))))), like)


@inline
def moved(xs: Any, us: Any, a: Any, zs: Any, ws: Any, by: Any, like: Any) -> Any:
    """xs += us + a zs, right if nothing passes the last threshold; ws = xs before. Returns whether something does.

    Before the first exponent, s is less than any large u, or half of it, which is where nearest moves.
    """
    largest = U(0)
    for i in range(len(xs)):
        w, u = load(xs[i]), F(us[i] + F(a * zs[i]))
        ws[i] = w
        largest = max(largest, U(bits(u) & _MAGNITUDE))
        exponent = binade(F(w + u), like)
        large = F(u * u) >= _limit(exponent, by)
        xs[i] = _moved(w, u, large, spacing(exponent, like), like)
    u = from_bits(largest)
    return F(u * u) >= _limit(I(by[0] + _LAST), by)


@inline
def moved_by_bits(xs: Any, us: Any, a: Any, zs: Any, ws: Any, rs: Any, by: Any, like: Any) -> None:
    """xs = ws + us + a zs; rs: 16 random bits each."""
    for i in range(len(xs)):
        u = F(us[i] + F(a * zs[i]))
        exponent = binade(F(ws[i] + u), like)
        last = min(exponent, I(by[0] + _LAST))
        taken = F(F(I(rs[i])) + F(0.5)) < from_bits(U(_ALL - I(exponent - last)))  # r < 2^16 / 2^depth
        large = taken & (F(u * u) >= _limit(last, by))
        xs[i] = _moved(ws[i], u, large, spacing(exponent, like), like)
