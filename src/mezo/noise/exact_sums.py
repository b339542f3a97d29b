"""Coefficients whose sums of plus and minus them are exact in float32, in whatever order they are added.

Integers times one power of two, such that their number times the largest magnitude stays below 2^24: every partial sum
is such an integer too, and float32 holds all of those. So a matrix product of signs with these coefficients has the
same bits from every library, on every device and for every cut.
"""

from collections.abc import Sequence
from math import frexp, isfinite, ldexp

LIMIT = 1 << 24


def whole(values: Sequence[float]) -> tuple[list[int], int]:
    """(q, e): values[k] is q[k] * 2**e, with len(q) * max |q| below 2^24.

    Exactly, where the values are such numbers already; else to nearest, ties to even, at the smallest e for which that
    holds. So rounding what was rounded changes nothing. All finite.
    """
    largest = max((abs(v) for v in values), default=0.0)
    if not largest:
        return [0] * len(values), 0
    room = (LIMIT - 1) // len(values)
    e = min(_lowest_bit(v) for v in values if v)
    if ldexp(largest, -e) > room:
        e = frexp(largest)[1] - room.bit_length()  # the largest is below 2^bit_length
        while round(ldexp(largest, -e)) > room:
            e += 1
    return [round(ldexp(v, -e)) for v in values], e


def rounded(values: Sequence[float]) -> tuple[float, ...]:
    """The values, as `whole` has them; all as they are if one is not finite."""
    if not all(map(isfinite, values)):
        return tuple(values)
    q, e = whole(values)
    return tuple(ldexp(n, e) for n in q)


def _lowest_bit(value: float) -> int:
    """The exponent of the last bit of the significand that is set."""
    numerator, denominator = value.as_integer_ratio()
    if denominator > 1:
        return 1 - denominator.bit_length()
    return (numerator & -numerator).bit_length() - 1
