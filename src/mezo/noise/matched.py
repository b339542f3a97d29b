"""Where `matched` rounding moves a 16-bit weight that rounding to nearest leaves where it is.

An update adds u = a_1 z_1 + a_2 z_2 ... = c zeta to a weight, with c^2 = a_1^2 + a_2^2 ... and zeta
standard normal. The values that the weight can take near its own are s apart. Rounding to nearest
moves it by k s where |u| passes (k - 1/2) s; as updates at usual learning rates are small beside s,
that is nearly never, and most of the update is lost. Matched rounding lowers the first of these
thresholds from s/2 to the T at which the move has, along z, just the size of the update:

    E[move zeta] = 2 s (phi(T / c) + phi(3/2 s / c) + phi(5/2 s / c) + ...) = c     (phi the normal density)

So nothing is lost along any direction (E[move z_k] = a_k, since move depends on z through zeta).
Among all roundings of which this holds, one that moves where |u| is largest moves least often (the
Neyman-Pearson lemma), so it adds the least noise: against stochastic rounding, half the variance at
c = s/4, a third at c = s/1000. And it hardly draws random bits.

T depends on r = c / s alone, which halves from one binade of weights to the next. Where r >= 1,
rounding to nearest keeps the update already (to 6e-9 of it). Where r < 2^-11, so few zeta reach T
that the noise would be felt to take 2^16 radii only (see `spec`): there the threshold stays that of
the last binade, and what passes it moves with probability 1/2, 1/4 ... as s grows, by rounding bits.

Over all 2^32 words of the noise, E[move zeta] is c to 0.2% for r < 2^-10, to 0.1% else. The two values
beside a power of two are the exception where r > 1/4, since s changes within the reach of an update: 5%
too little below it, 1.4% too much above it, at most, as in rounding to nearest itself.

Decay is no part of u: it comes first, rounded stochastically, which keeps it at any size.
"""

import math
from collections.abc import Sequence
from decimal import Context, Decimal
from functools import lru_cache
from typing import NamedTuple

import numpy as np

LEVELS = 11  # binades with a threshold of their own, r from 1 down to 2^-11
SLOPE = 1.3862943611198906  # 2 ln 2: what (T / c)^2 gains from one binade to the next
BIAS = 127  # of float32's exponents

# Logarithms and exponentials of C libraries differ in their last bit; those of `decimal` do not.
_EXACT = Context(prec=20)
_ROOT_HALF_PI = Decimal("1.2533141373155002512")


class Matched(NamedTuple):
    """The thresholds of an update. Exponents are float32's, with their bias of 127.

    T^2 is `start` at the exponent `first`, `second` at the next, then `slope` exponent + `rest`.
    """

    first: int  # exponent of the weights where 1/2 <= r < 1
    start: float
    second: float
    slope: float
    rest: float


def matched(seeds: Sequence[int], coefficients: Sequence[float], form: tuple[int, int]) -> Matched | None:
    """The thresholds for an update with Gaussian noise; form: `spec.BFLOAT16` or `spec.FLOAT16`.

    None where there is nothing to choose by: no update, or one beyond any use (not 2^-48 <= c < 2^48,
    which keeps all numbers here normal in float32).
    """
    summed: dict[int, float] = {}  # a seed that comes twice is one direction
    for seed, a in zip(seeds, coefficients, strict=True):
        summed[seed] = summed.get(seed, 0.0) + float(np.float32(a))
    c = math.sqrt(math.fsum(a * a for a in summed.values()))
    return _thresholds(c, form[0]) if 2.0**-48 <= c < 2.0**48 else None


@lru_cache(maxsize=64)
def _thresholds(c: float, stored: int) -> Matched:
    r, exponent = math.frexp(c)  # in the first binade, s = 2^exponent and r = c / s
    first = exponent + stored + BIAS
    rest = _level(r, further=0) - SLOPE * first
    start, second = _level(r, further=6), _level(r / 2, further=2)
    return Matched(first, *(c * c * level for level in (start, second, SLOPE, rest)))


def _level(r: float, *, further: int) -> float:
    """(T / c)^2 for r = c / s; `further`: how many thresholds after the first count."""
    ratio = Decimal(r)
    height = _EXACT.multiply(ratio, _ROOT_HALF_PI)  # of exp(-(T / c)^2 / 2) and what follows it
    for k in range(1, further + 1):
        past = _EXACT.divide(k + Decimal("0.5"), ratio)
        height = _EXACT.subtract(height, _EXACT.exp(_EXACT.divide(_EXACT.multiply(past, past), -2)))
    return float(-2 * _EXACT.ln(height))
