"""Matched rounding keeps an update along its noise, with less noise of its own than stochastic rounding.

Means are integrals over the normal density of what the specification does, not samples.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from tests.noise.oracle import FORMATS, same_bits, updated

from mezo import noise
from mezo.noise import spec
from mezo.noise.matched import LEVELS, matched
from mezo.noise.where import Where

halves = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)

WIDTH = 2.0**-12  # of a step of the integrals; a threshold T lies up to half a step off, and its share of E
# is T e^(-T^2 / 2) or less of it a unit: T * WIDTH / 2 < 5e-4 of E, and thresholds are rounded to 1e-5
ZETA = (np.arange(-8.0, 8.0, WIDTH) + WIDTH / 2).astype(np.float32)
MASS = stats.norm.pdf(ZETA.astype(np.float64)) * WIDTH


def moves(x: float, c: float, dtype: torch.dtype, bits: int = 0) -> np.ndarray:
    """What x moves by for each of ZETA, under an update of size c."""
    form = FORMATS[dtype]
    by = matched([1], [c], form)
    assert by is not None
    xs, u = np.full(len(ZETA), x, np.float32), np.float32(c) * ZETA
    return spec.moved(xs, u, form, np.full(len(ZETA), bits, np.uint32), by).astype(np.float64) - x


def unit(x: float, dtype: torch.dtype) -> float:
    """How far the values of the type are apart just above x."""
    stored, smallest = FORMATS[dtype]
    return math.ldexp(1.0, max(math.frexp(x)[1] - 1, smallest) - stored)


# In the middle of a binade, at either end of one (values towards zero are half as far apart), at zero and
# among the subnormal numbers of float16 (where a unit is 2^-24).
PLACES = {"middle": 1.5, "negative": -0.0234375, "power of two": 2.0**-6, "minus": -1.0, "zero": 0.0}
ratios = pytest.mark.parametrize("r", [2.0 ** -(k + f) for k in range(LEVELS) for f in (0.01, 0.5, 0.99)])


@pytest.mark.parametrize(
    ("dtype", "place"),  # bfloat16 has units of 2^-133 at 0, and no update is as small
    [(dtype, place) for dtype in FORMATS for place in PLACES if (dtype, place) != (torch.bfloat16, "zero")],
    ids=str,
)
@ratios
def test_the_update_arrives_along_its_noise(dtype: torch.dtype, r: float, place: str) -> None:
    """E[move zeta] = c at every size of the update, and nothing along anything else."""
    x = PLACES[place]
    c = float(np.float32(r * unit(x, dtype)))
    move = moves(x, c, dtype)
    assert abs((move * ZETA * MASS).sum() / c - 1) < 1e-3
    if place != "power of two" and place != "minus":  # there, steps up and down are not as long
        assert abs((move * MASS).sum()) < 1e-3 * c


@pytest.mark.parametrize("depth", [1, 2, 7, 13])
@halves
def test_below_the_last_threshold_it_arrives_by_chance(dtype: torch.dtype, depth: int) -> None:
    """What passes the last threshold moves with probability 2^-depth, by the 16 bits."""
    x, r = 1.5, 2.0 ** -(LEVELS - 0.5 + depth)
    c = float(np.float32(r * unit(x, dtype)))
    always = (moves(x, c, dtype) * ZETA * MASS).sum() / c
    assert abs(always * 2.0**-depth - 1) < 1e-3
    highest = (1 << (16 - depth)) - 1  # the bits that move it are 0 to this, 2^-depth of all
    assert np.array_equal(moves(x, c, dtype, highest), moves(x, c, dtype))
    assert not moves(x, c, dtype, highest + 1).any()


@ratios
@halves
def test_its_noise_is_less_than_that_of_stochastic_rounding(dtype: torch.dtype, r: float) -> None:
    """Variance: stochastic adds s E|u| - E u^2 = c^2 (sqrt(2 / pi) / r - 1) where |u| < s.

    Matched moves by s past T and no further where r is small, with E[move zeta] = 2 s phi(T/c) = c; so it
    adds s^2 P(|u| > T) - c^2 = c^2 (Q(t) / (r phi(t)) - 1), where Q is the normal tail and t = T / c =
    sqrt(-2 ln(r sqrt(pi / 2))). For r <= 1/4 the second threshold 3/2 s / c lies past 6.
    """
    s = unit(1.5, dtype)
    c = float(np.float32(r * s))
    move = moves(1.5, c, dtype)
    variance = ((move - c * ZETA.astype(np.float64)) ** 2 * MASS).sum() / c**2
    assert variance < 1.001 * (((np.abs(ZETA) * r) % 1) * (1 - (np.abs(ZETA) * r) % 1) * MASS).sum() / r**2
    if r <= 0.25:
        t = math.sqrt(-2 * math.log(r * math.sqrt(math.pi / 2)))
        expected = stats.norm.sf(t) / (r * stats.norm.pdf(t)) - 1
        # T moves by half a step at most, and P(|u| > T) with it by t * WIDTH / 2 of itself
        assert abs(variance - expected) < 1e-3 * (expected + 1)
        assert variance < 0.5 * (math.sqrt(2 / math.pi) / r - 1)


def test_where_the_unit_is_smaller_than_the_update_it_is_rounding_to_nearest() -> None:
    w = torch.randn(1, 4096, generator=torch.Generator().manual_seed(0)).bfloat16()
    near, ours = w.clone(), w.clone()
    noise.update_(near, Where(1), [2], [0.05], rounding="nearest")
    noise.update_(ours, Where(1), [2], [0.05], rounding="matched")
    fine = w.float().abs() < 4  # 4 has units of 2^-5; beyond, r < 1
    assert same_bits(ours[fine], near[fine])


@halves
def test_each_of_several_directions_keeps_its_share(dtype: torch.dtype) -> None:
    """Over n elements, the mean of move z_k has standard error sqrt(E[move^2 z_k^2] / n).

    E[move^2] = s^2 P(|u| > T) = s c Q(t) / phi(t) < s c / t; r is 2^-5 or less, so t > 2.5. Where it
    moves, E[z_k^2] is no more than 1 + t^2, and t < 3.7: 15.
    """
    n, coefficients = 1 << 22, [1e-5, -2e-5, 8e-6]
    x = torch.full((1, n), 1.5, dtype=dtype)
    s, c = unit(1.5, dtype), math.sqrt(sum(a * a for a in coefficients))
    assert c < s / 32
    noise.update_(x, Where(3), [4, 5, 6], coefficients, rounding="matched", rounding_seed=7)
    move = x.double() - 1.5
    for seed, a in zip([4, 5, 6], coefficients, strict=True):
        z = torch.empty(1, n)
        noise.fill_(z, Where(3), seed)
        error = math.sqrt(s * c / 2.5 * 15 / n)
        assert abs((move * z).mean().item() - a) < 4 * error
        assert 2 * error < abs(a) / 3  # a share that is lost would be seen


@halves
def test_decay_is_kept(dtype: torch.dtype) -> None:
    """The mean of a weight of 1.5 falls by 1.5 (1 - decay), to five standard errors.

    Decay moves it by a unit with probability p = 1.5 (1 - decay) / s, the update with P < c / s: over
    n elements the standard error is s sqrt((p + P) / n) or less.
    """
    n, decay, a = 1 << 20, 1 - 2.0**-14, 2e-5
    x = torch.full((1, n), 1.5, dtype=dtype)
    noise.update_(x, Where(3), [4], [a], decay=decay, rounding="matched", rounding_seed=7)
    s = unit(1.5, dtype)
    expected = 1.5 * (1 - decay)
    error = s * math.sqrt((expected / s + a / s) / n)
    assert abs(1.5 - x.double().mean().item() - expected) < 5 * error
    assert 5 * error < expected / 10  # so that lost decay would be seen


def test_a_tiny_update_arrives() -> None:
    """At lr * g = 1e-6, where rounding to nearest loses nearly all of it (see `test_rounding`).

    Weights of 0.02 have units s of 2^-13 in the mean, or less: r = 2^-7, t = 3. As above, the standard
    error over n weights is sqrt((t + 1 / t) s / (c n)):
    0.3% for three seeds of 2^24 each.
    """
    n, start = 1 << 24, torch.Generator().manual_seed(0)
    weights = (torch.randn(1, n, generator=start) * 0.02).bfloat16()
    z, arrived = torch.empty(1, n), []
    for seed in (3, 4, 5):
        w = weights.clone()
        noise.fill_(z, Where(2), seed)
        noise.update_(w, Where(2), [seed], [1e-6], rounding="matched", rounding_seed=4)
        arrived.append(((w.double() - weights.double()) * z).mean().item() / 1e-6)
    assert abs(sum(arrived) / 3 - 1) < 0.01


@pytest.mark.parametrize(
    ("seeds", "coefficients", "kind"),
    [([], [], "gaussian"), ([1, 2], [0.0, -0.0], "gaussian"), ([1], [1e-20], "gaussian"),
     ([1], [math.nan], "gaussian"), ([1, 1], [0.5, -0.5], "gaussian"), ([1], [1e-3], "rademacher")],
)  # fmt: skip
@halves
def test_without_gaussian_noise_it_is_stochastic(
    dtype: torch.dtype, seeds: list[int], coefficients: list[float], kind: noise.Kind
) -> None:
    ours = torch.randn(1, 3000, generator=torch.Generator().manual_seed(0)).to(dtype)
    theirs = ours.clone()
    for w, rounding in ((ours, "matched"), (theirs, "stochastic")):
        settings = dict(rounding=rounding, decay=0.99, rounding_seed=5, kind=kind)
        noise.update_(w, Where(1), seeds, coefficients, **settings)  # type: ignore[arg-type]
    assert same_bits(ours, theirs)


def test_a_seed_given_twice_is_one_direction() -> None:
    form = spec.BFLOAT16
    assert matched([1, 2, 1], [0.5, 1.0, 0.25], form) == matched([1, 2], [0.75, 1.0], form)
    assert matched([1, 3, 2], [0.5, 1.0, 0.25], form) != matched([1, 2], [0.75, 1.0], form)


@halves
def test_every_value_under_updates_of_every_size(dtype: torch.dtype) -> None:
    """Infinities, NaNs, zeros, subnormals, the largest, powers of two: the kernels do as the specification."""
    codes = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    for exponent in range(-48, 48, 5):
        start = codes.view(dtype).view(1, -1)
        for decay in (1.0, 0.9):
            w, a = start.clone(), [1.3 * 2.0**exponent, -0.4 * 2.0**exponent]
            with np.errstate(all="ignore"):
                expected = updated(w, Where(9), [3, 4], a, decay=decay, rounding="matched", rounding_seed=6)
            noise.update_(w, Where(9), [3, 4], a, decay=decay, rounding="matched", rounding_seed=6)
            assert same_bits(w, expected)
            assert torch.equal(w.isnan(), start.isnan())
            assert start.isinf()[w.isinf()].all() or exponent > 0
