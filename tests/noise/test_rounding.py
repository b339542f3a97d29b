"""What becomes of 16-bit weights: non-finite values, subnormals, and updates smaller than a unit."""

import math

import numpy as np
import pytest
import torch
from tests.noise.oracle import DTYPES, FORMATS, same_bits, updated

from mezo import noise
from mezo.noise import spec
from mezo.noise.where import Where

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
halves = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
roundings = pytest.mark.parametrize("rounding", ["matched", "stochastic", "nearest"])


def every_value(dtype: torch.dtype) -> torch.Tensor:
    """All 65536 values of a 16-bit type, NaN included, in a fixed shuffled order: (1, 65536)."""
    codes = np.random.default_rng(0).permutation(np.arange(1 << 16, dtype=np.uint16)).view(np.int16)
    return torch.from_numpy(codes).view(dtype).view(1, -1)


@roundings
@halves
def test_every_value_of_the_type(dtype: torch.dtype, rounding: noise.Rounding) -> None:
    """Each of them, updated by much, by little, and shrunk into the subnormals, equals the oracle."""
    for seeds, coefficients, decay in (
        ([], [], 1.0),
        ([1], [1e-7], 1.0),
        ([1], [0.3], 1.0),
        ([1, 2], [3e38, 3e4], 1.0),
        ([], [], 2.0**-9 * 0.7),
        ([], [], 1.0009765625),
    ):
        w = every_value(dtype)
        out = w.clone()
        settings = dict(decay=decay, rounding=rounding, rounding_seed=11)
        with np.errstate(over="ignore", invalid="ignore"):
            expected = updated(w, Where(2), seeds, coefficients, **settings)  # type: ignore[arg-type]
        noise.update_(out, Where(2), seeds, coefficients, **settings)  # type: ignore[arg-type]
        assert same_bits(out, expected)


@roundings
@dtypes
def test_nothing_to_add_changes_nothing(dtype: torch.dtype, rounding: noise.Rounding) -> None:
    """Values of the type are never moved by rounding; only NaNs lose sign and payload."""
    w = torch.randn(1, 65536) if dtype == torch.float32 else every_value(dtype)
    out = w.clone()
    noise.update_(out, Where(2), [], [], rounding=rounding)
    assert torch.equal(out.isnan(), w.isnan())
    finite = ~w.isnan()
    assert same_bits(out[finite], w[finite])


@roundings
@dtypes
def test_non_finite_weights_stay_and_harm_nobody(dtype: torch.dtype, rounding: noise.Rounding) -> None:
    clean = torch.randn(1, 4096).to(dtype)
    marred = clean.clone()
    at = {5: math.nan, 100: -math.nan, 200: math.inf, 1111: -math.inf}
    for i, value in at.items():
        marred[0, i] = value
    outputs = []
    for w in (clean, marred):
        plus, minus, out = torch.empty_like(w), torch.empty_like(w), w.clone()
        noise.perturb_pair(w, Where(2), 3, 1e-3, plus, minus)
        noise.update_(out, Where(2), [3], [1e-3], rounding=rounding)
        outputs.append(torch.cat([plus, minus, out]))
    others = torch.ones(4096, dtype=torch.bool)
    others[list(at)] = False
    assert same_bits(outputs[1][:, others], outputs[0][:, others])
    for i, value in at.items():
        found = outputs[1][:, i]
        assert found.isnan().all() if math.isnan(value) else (found == value).all()


@dtypes
def test_subnormals_are_kept(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal
    w = (torch.randn(1, 4096, dtype=torch.float64) * tiny).to(dtype)
    assert 0 < w[w != 0].abs().min() < tiny
    out = torch.empty_like(w)
    noise.perturb(w, Where(2), 3, 0.0, out)
    assert torch.equal(out, w)
    noise.update_(out, Where(2), [], [], decay=0.5, rounding="nearest")
    assert torch.equal(out, (w.double() * 0.5).to(dtype))


@halves
def test_past_the_largest_value_lies_infinity(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    w = torch.full((1, 1 << 16), largest, dtype=dtype)
    unit = (
        largest - torch.nextafter(torch.tensor(largest, dtype=dtype), torch.tensor(0.0, dtype=dtype)).item()
    )
    # Rademacher noise adds a quarter unit to half of them: there a quarter goes over the top
    noise.update_(w, Where(2), [3], [unit / 4], kind="rademacher")
    share = w.isinf().double().mean().item()
    # standard error of a share of 65536 drawn with probability 1/8: sqrt(7/64) / 256
    assert abs(share - 1 / 8) < 5 * math.sqrt(7 / 64) / 256
    assert (w[~w.isinf()].double() >= largest - unit).all()


@pytest.mark.parametrize("value", [1.0, 1e-5, 3e-6, 2e-7])
@halves
def test_stochastic_rounding_is_unbiased(dtype: torch.dtype, value: float) -> None:
    """Over all 2^16 rounding bits: the mean is x, to the resolution the specification states."""
    rng = np.random.default_rng(1)
    bits = np.arange(1 << 16, dtype=np.uint32)
    for x in (value * (1 + rng.random(20))).astype(np.float32):
        found = spec.rounded(np.full(1 << 16, x), FORMATS[dtype], bits).astype(np.float64)
        low, high = found.min(), found.max()
        # exact where at most 16 bits are dropped; else (float16 below 2^-17) half of 2^-16 of a unit
        coarse = dtype == torch.float16 and x < 2.0**-17
        assert low <= x <= high
        assert abs(found.mean() - x) <= (high - low) * (2.0**-17 if coarse else 0)


def test_a_tiny_update_arrives_in_the_mean() -> None:
    """At lr * g = 1e-6 bfloat16 weights of a usual size keep it stochastically, and lose it to nearest.

    Half of the weights get +1e-6 and half -1e-6 (Rademacher); what arrived is projected on z. A
    weight of 0.02 has units of 2^-13, so each moves with probability 1e-6 * 2^13 = 0.8% or less, by
    a unit: over n = 2^24 weights the relative standard error is sqrt(1 / (1e-6 * 2^13 n)) = 0.27%.
    """
    n = 1 << 24
    start = (torch.randn(1, n, generator=torch.Generator().manual_seed(0)) * 0.02).to(torch.bfloat16)
    z = torch.empty(1, n)
    noise.fill_(z, Where(2), 3, kind="rademacher")
    arrived = {}
    for rounding in ("stochastic", "nearest"):
        w = start.clone()
        noise.update_(w, Where(2), [3], [1e-6], rounding=rounding, rounding_seed=4, kind="rademacher")
        arrived[rounding] = ((w.double() - start.double()) * z).mean().item() / 1e-6
    assert abs(arrived["stochastic"] - 1) < 0.01
    assert arrived["nearest"] < 0.3


@halves
def test_stochastic_rounding_is_repeatable_and_its_seed_matters(dtype: torch.dtype) -> None:
    start = torch.randn(1, 5000).to(dtype)
    results = []
    for rounding_seed in (4, 4, 5):
        w = start.clone()
        noise.update_(w, Where(2), [3], [1e-3], rounding_seed=rounding_seed)
        results.append(w)
    assert same_bits(results[0], results[1])
    assert (results[0] != results[2]).double().mean() > 0.05
