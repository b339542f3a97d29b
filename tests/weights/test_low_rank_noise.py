"""Low-rank noise: what z is, to the bit; that it is white; and that it reaches the weights as it should."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.noise.oracle import DTYPES, same_bits, stored

from mezo import noise
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.noise import cpu_lowrank, spec
from mezo.noise.where import Where
from mezo.types import Probe, Scaling
from mezo.weights import low_rank_noise
from mezo.weights.low_rank_noise import LowRank
from mezo.weights.weights import Weights

NAME, ROWS, COLUMNS, RANK = "layer.weight", 37, 45, 3
F = np.float32


def drawn(rows: int = ROWS, columns: int = COLUMNS, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).to(dtype)


def low() -> LowRank:
    found = LowRank.of(NAME, drawn(), RANK)
    assert found is not None
    return found


def factors(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(r, rows) and (r, columns) float32, from the specification of the noise."""
    left = spec.noise(np.arange(RANK * ROWS), noise.tensor_id(f"{NAME}/left"), seed).reshape(RANK, ROWS)
    right = spec.noise(np.arange(RANK * COLUMNS), noise.tensor_id(f"{NAME}/right"), seed)
    return left * F(1 / math.sqrt(RANK)), right.reshape(RANK, COLUMNS)


def summed(x: np.ndarray, seeds: list[int], coefficients: list[float]) -> np.ndarray:
    """x + sum_k a_k z_k in float32, every operation rounded by itself."""
    x = x.copy()
    for seed, a in zip(seeds, coefficients, strict=True):
        left, right = factors(seed)
        z = left[0][:, None] * right[0]
        for k in range(1, RANK):
            z += left[k][:, None] * right[k]
        x += F(a) * z
    return x


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_perturbed_weights_are_those_of_the_specification(dtype: torch.dtype, device: str) -> None:
    w = drawn(dtype=dtype).to(device)
    out = torch.empty_like(w)
    low().perturb(w.view(1, -1), 0, 7, 1e-2, out.view(1, -1))
    assert same_bits(out.cpu(), stored(summed(w.float().cpu().numpy(), [7], [1e-2]), dtype))


@given(cuts=st.lists(st.integers(0, ROWS * COLUMNS), max_size=6))
def test_any_cut_sees_the_same_noise(cuts: list[int]) -> None:
    expected = torch.from_numpy(summed(np.zeros((ROWS, COLUMNS), F), [7, 8], [0.5, -2.0])).view(1, -1)
    found = torch.zeros(1, ROWS * COLUMNS)
    edges = [0, *sorted(cuts), ROWS * COLUMNS]
    for start, stop in zip(edges, edges[1:], strict=False):
        low().add_(found[:, start:stop], start, [7, 8], [0.5, -2.0])
    assert same_bits(found, expected)


@given(start=st.integers(0, ROWS * COLUMNS - 1), count=st.integers(1, 400), rank=st.integers(1, 4))
def test_the_kernel_and_torch_agree(start: int, count: int, rank: int) -> None:
    count = min(count, ROWS * COLUMNS - start)
    first, last = start // COLUMNS, -(-(start + count) // COLUMNS)
    generator = torch.Generator().manual_seed(start)
    left = torch.randn(2, rank, last - first, generator=generator)
    right = torch.randn(2, rank, COLUMNS, generator=generator)
    a = torch.randn(count, generator=generator)
    b = a.clone()
    cpu_lowrank.add_(a, start, left, right, [0.3, -1.7], first)
    low_rank_noise.add_summed(b, start, left, right, [0.3, -1.7], first)
    assert same_bits(a, b)


def test_any_number_of_threads_sums_the_same() -> None:
    w = drawn(300, 700)
    found = LowRank.of(NAME, w, RANK)
    assert found is not None
    a, b = w.clone(), w.clone()
    found.add_(a.view(1, -1), 0, [3], [0.5])
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found.add_(b.view(1, -1), 0, [3], [0.5])
    finally:
        torch.set_num_threads(before)
    assert same_bits(a, b)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("rounding", ["matched", "stochastic", "nearest"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_update_is_that_of_the_specification(
    dtype: torch.dtype, rounding: noise.Rounding, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, coefficients = [5, 6], [0.1, -0.2]
    w = drawn(dtype=dtype)
    bits = spec.rounding_bits(np.arange(w.numel()).reshape(w.shape), noise.tensor_id(NAME), seeds[0])
    exact = summed(w.float().numpy() * F(0.9), seeds, coefficients)
    expected = stored(exact, dtype, None if rounding == "nearest" else bits)
    for size in (1 << 20, 100):  # whole, and cut in the middle of rows
        monkeypatch.setattr("mezo.weights.weights.block_size", lambda device, size=size: size)
        monkeypatch.setattr("mezo.weights.low_rank_noise._AT_ONCE", size)
        monkeypatch.setattr("mezo.weights.low_rank_noise.BLOCK", size)
        mine = w.to(device, copy=True)
        Weights([(NAME, mine)], kind="low-rank", rank=RANK).update_(
            seeds, coefficients, decay=0.9, rounding=rounding
        )
        assert same_bits(mine.cpu(), expected)


def test_only_matrices_without_a_short_side_have_it() -> None:
    named = {
        "matrix": torch.zeros(40, 32),
        "experts": torch.zeros(2, 32, 32),  # as (64, 32)
        "factor": torch.zeros(8, 576),
        "kernel": torch.zeros(64, 64, 3),
        "norm": torch.zeros(64),
        "scale": torch.tensor(0.0),
    }
    weights = Weights(named.items(), kind="low-rank")
    assert [t.name for t in weights.tunables if t.low_rank] == ["matrix", "experts"]
    assert not any(t.low_rank for t in Weights(named.items()).tunables)
    weights.add_noise_(Probe(3, 1.0))
    for name, tensor in named.items():
        if name in ("matrix", "experts"):
            assert torch.linalg.matrix_rank(tensor.view(-1, 32)) == 2
        else:
            z = torch.empty(1, tensor.numel())
            noise.fill_(z, Where(noise.tensor_id(name)), 3)
            assert same_bits(tensor.view(1, -1), z)


def test_the_norm_is_that_of_z() -> None:
    tensors = {NAME: torch.zeros(ROWS, COLUMNS), "bias": torch.zeros(200)}
    weights = Weights(tensors.items(), kind="low-rank", rank=RANK)
    scaling = Scaling("some", (0.5, 3.0))
    weights.add_noise_(Probe(9, 1.0, scaling))
    squares = sum(float(t.double().square().sum()) for t in tensors.values())
    # of sums of thousands of squares, each of numbers rounded to 2^-13 at most: well below 1e-4
    assert math.isclose(weights.norm(9, scaling), math.sqrt(squares), rel_tol=1e-4)


def test_scaled_updates_and_sums_are_those_of_the_scaled_coefficients() -> None:
    scaling = Scaling("half", (0.5,))
    a, b, c = drawn(), drawn(), drawn()
    for w, scalings, coefficient in ((a, [scaling], 0.2), (b, [], 0.1)):
        Weights([(NAME, w)], kind="low-rank", rank=RANK).update_([4], [coefficient], scalings=scalings)
    weights = Weights([(NAME, c)], kind="low-rank", rank=RANK)
    for start, stop in ((0, 50), (50, c.numel())):
        weights.add_to_(weights.tunables[0].flat()[:, start:stop], 0, start, [4], [0.1])
    assert same_bits(a, b)
    assert same_bits(c, b)


def test_z_is_white() -> None:
    """The mean of (g . z) z is g, and that of (g . z)^2 is |g|^2: n-SPSA is unbiased, slopes keep their size."""
    rows, columns, count = 32, 33, 6000
    g = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))
    found = LowRank.of("w", g, 2)
    assert found is not None
    mean, squares = torch.zeros_like(g), 0.0
    for seed in range(count):
        z = found.left(seed).T @ found.right(seed)
        slope = float((g * z).sum())
        mean += slope * z / count
        squares += slope**2 / count
    # The kurtosis of g . z is at most 9 (rank 1 of both), so the mean of its squares has a relative
    # standard deviation of at most sqrt(8 / 6000) = 0.037. Each element of the mean is off by about
    # |g| / sqrt(6000), their norm by |g| sqrt(1056 / 6000) = 0.42 |g|; of it, the part along g is small.
    assert abs(squares / float(g.square().sum()) - 1) < 4 * 0.037
    assert float((mean - g).norm() / g.norm()) < 0.42 * 1.3
    assert abs(float((mean * g).sum() / g.square().sum()) - 1) < 4 * 0.037


def test_a_rank_out_of_bounds_is_refused() -> None:
    for rank in (0, 33):
        with pytest.raises(MezoError, match="noise_rank"):
            MeZOConfig.build(noise="low-rank", noise_rank=rank)


def test_a_kernel_is_not_asked_for_low_rank_noise() -> None:
    """Whoever bypasses `Weights` is told."""
    with pytest.raises(MezoError, match="low-rank"):
        noise.fill_(torch.empty(1, 8), Where(0), 0, kind="low-rank")  # type: ignore[arg-type]
    assert low_rank_noise.SHORTEST == 32
