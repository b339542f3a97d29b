"""Rank-one signs: what z is, to the bit; that a step's sum is exact; and that nothing about a product changes its bits."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.noise.fresh import run
from tests.noise.oracle import DTYPES, KINDS, same_bits, stored

from mezo import noise
from mezo.noise import spec
from mezo.noise.exact_sums import LIMIT, rounded, whole
from mezo.types import Probe, Scaling
from mezo.weights import rank_one
from mezo.weights.multi_step import Sum, update_sequence_
from mezo.weights.rank_one import Moved, RankOne
from mezo.weights.weights import Weights

NAME, ROWS, COLUMNS = "layer.weight", 53, 41
F = np.float32
SEEDS = [3, 2**64 - 1, *range(10, 26)]
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
SLOPES = [random.Random(seed).gauss(0, 10 ** random.Random(seed).uniform(-3, 3)) for seed in SEEDS]


def drawn(shape: tuple[int, ...] = (ROWS, COLUMNS), dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def low() -> RankOne:
    found = RankOne.of(NAME, drawn())
    assert found is not None
    return found


def factors(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) and (columns,) signs, from the specification of the noise."""
    left = spec.noise(np.arange(ROWS), noise.tensor_id(f"{NAME}/left"), seed, "rademacher")
    return left, spec.noise(np.arange(COLUMNS), noise.tensor_id(f"{NAME}/right"), seed, "rademacher")


def summed(x: np.ndarray, slopes: list[float], factor: float) -> np.ndarray:
    """x + factor * sum_k c_k r_k s_k^T: the sum in whole numbers of any size, then two operations of float32."""
    q, e = whole(slopes)
    total = np.zeros((ROWS, COLUMNS), dtype=np.int64)
    for seed, n in zip(SEEDS, q, strict=True):
        left, right = factors(seed)
        total += n * np.outer(left, right).astype(np.int64)
    assert np.abs(total).max() < LIMIT
    return x + total.astype(F) * F(factor * 2.0**e)


# ------------------------------------------------------------------ numbers whose sums are exact


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=70))
def test_rounded_values_are_whole_and_stay_so(values: list[float]) -> None:
    q, e = whole(values)
    assert len(q) * max(map(abs, q)) < LIMIT
    # at most half a unit from where they were, and the unit is as small as the largest allows
    assert all(abs(n * 2.0**e - v) <= 2.0 ** (e - 1) for n, v in zip(q, values, strict=True))
    assert 2.0**e <= max(map(abs, values)) * len(values) / 2**21 or rounded(values) == tuple(values)
    assert rounded(rounded(values)) == rounded(values)
    if len(values) == 1:
        assert rounded(values) == tuple(values), "one float32 is whole by itself"


def test_values_that_are_not_finite_stay() -> None:
    assert rounded([1.0, float("inf")]) == (1.0, float("inf"))


# ------------------------------------------------------------------ what z is


@devices
def test_z_is_two_vectors_of_the_specification(device: str) -> None:
    for seed in SEEDS[:3]:
        zeros = [(NAME, torch.zeros(ROWS, COLUMNS, device=device)), ("bias", torch.zeros(77, device=device))]
        weights = Weights(zeros, kind="rank-one")
        weights.add_noise_(Probe(seed, 1.0))
        matrix, bias = (t.tensor.cpu().numpy() for t in weights.tunables)
        assert np.array_equal(matrix, np.outer(*factors(seed)))
        assert np.array_equal(bias, spec.noise(np.arange(77), noise.tensor_id("bias"), seed, "rademacher"))
        assert weights.norm(seed) == (ROWS * COLUMNS + 77) ** 0.5
        half = Weights([(NAME, torch.zeros(ROWS, COLUMNS, device=device))], kind="rank-one")
        half.add_noise_(Probe(seed, 2.0, Scaling("half", (0.5,))))
        assert np.array_equal(half.tunables[0].tensor.cpu().numpy(), matrix)


@devices
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_many_seeds_are_those_of_each(kind: noise.Kind, device: str) -> None:
    for start, count in ((0, 5), (7, 4000), (511, 2), (2047, 600)):
        found = noise.vectors(99, SEEDS, start, count, device, kind=kind).cpu()
        for row, seed in zip(found, SEEDS, strict=True):
            z = spec.noise(np.arange(start, start + count), 99, seed, kind)
            assert same_bits(row, torch.from_numpy(z))


def test_z_is_white() -> None:
    """Means of products of distinct elements of 4,000 draws: standard deviation 1 / sqrt(4000)."""
    zs = torch.stack([left.view(-1, 1) * right for left, right in map(_signs, range(4000))]).flatten(1)
    products = zs.t() @ zs / len(zs)
    assert torch.equal(products.diagonal(), torch.ones(12))
    off = products - torch.eye(12)
    assert float(off.abs().max()) < 5 / len(zs) ** 0.5
    assert float(zs.mean(0).abs().max()) < 4 / len(zs) ** 0.5


def _signs(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    found = RankOne.of("w", torch.zeros(3, 4))
    assert found is not None
    return found.left(seed)[0], found.right(seed)[0]


# ------------------------------------------------------------------ the sum of a step


def by_product(
    seeds: list[int], slopes: list[float], dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> torch.Tensor:
    weights = Weights([(NAME, drawn(dtype=dtype).to(device))], kind="rank-one")
    weights.update_(seeds, slopes, factor=-1e-3, rounding="nearest")
    return weights.tunables[0].tensor.cpu()


@devices
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_update_is_the_sum_in_whole_numbers(dtype: torch.dtype, device: str) -> None:
    start = drawn(dtype=dtype).float().numpy()
    expected = torch.from_numpy(summed(start, SLOPES, -1e-3)).to(dtype)
    assert same_bits(by_product(SEEDS, SLOPES, dtype, device), expected)


@devices
@pytest.mark.parametrize("rounding", ["matched", "stochastic"])
@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_a_rounded_update_uses_the_bits_of_the_specification(
    dtype: torch.dtype, rounding: Any, device: str
) -> None:
    weights = Weights([(NAME, drawn(dtype=dtype).to(device))], kind="rank-one")
    weights.update_(SEEDS, SLOPES, factor=-1e-3, decay=0.9, rounding=rounding)
    decayed = drawn(dtype=dtype).float().numpy() * F(0.9)
    index = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    bits = spec.rounding_bits(index, noise.tensor_id(NAME), SEEDS[0])
    expected = stored(summed(decayed, SLOPES, -1e-3), dtype, bits)
    assert same_bits(weights.tunables[0].tensor.cpu(), expected)


def test_the_order_of_directions_does_not_matter() -> None:
    expected = by_product(SEEDS, SLOPES)
    order = list(range(len(SEEDS)))
    for seed in range(4):
        random.Random(seed).shuffle(order)
        assert same_bits(by_product([SEEDS[i] for i in order], [SLOPES[i] for i in order]), expected)
    assert same_bits(by_product(SEEDS[::-1], SLOPES[::-1]), expected)


def test_slopes_that_are_not_whole_would_depend_on_the_order() -> None:
    """What the rounding is for: the same sum of float32 terms as they are, forwards and backwards."""
    terms = [F(c) * np.outer(*factors(seed)).astype(F) for seed, c in zip(SEEDS, SLOPES, strict=True)]
    assert not np.array_equal(
        sum(terms, np.zeros((ROWS, COLUMNS), F)), sum(terms[::-1], np.zeros((ROWS, COLUMNS), F))
    )


@given(cuts=st.lists(st.integers(0, ROWS * COLUMNS), max_size=6))
def test_any_cut_has_the_same_bits(cuts: list[int]) -> None:
    values = drawn().view(1, -1)
    ends = sorted({0, ROWS * COLUMNS, *cuts})
    for start, stop in zip(ends[:-1], ends[1:], strict=True):
        low().add_(values[:, start:stop], start, SEEDS, SLOPES, -1e-3)
    assert same_bits(values.view(ROWS, COLUMNS), by_product(SEEDS, SLOPES))


def test_shards_of_rows_and_columns_and_other_libraries_have_the_same_bits() -> None:
    """A process that holds a part of a matrix multiplies parts of the factors, by whatever library it has."""
    left, right, unit, _ = low().drawn(Moved(SEEDS, SLOPES, -1e-3), torch.device("cpu"))
    expected = by_product(SEEDS, SLOPES)
    theta = drawn()
    products = {
        "numpy": lambda a, b: torch.from_numpy(a.numpy() @ b.numpy()),
        "einsum of NumPy, without a library": lambda a, b: torch.from_numpy(
            np.einsum("ik,kj->ij", a.numpy(), b.numpy(), optimize=False)
        ),
        "one direction after another": lambda a, b: sum(torch.outer(a[:, k], b[k]) for k in range(len(b))),
        "backwards": lambda a, b: a.flip(1) @ b.flip(0),
        "in two halves": lambda a, b: a[:, :9] @ b[:9] + a[:, 9:] @ b[9:],
        "float64": lambda a, b: (a.double() @ b.double()).float(),
        "oneDNN": lambda a, b: (
            torch.ops.mkldnn._linear_pointwise(a, b.t().contiguous(), None, "none", [], "")
            if torch.backends.mkldnn.is_available()
            else a @ b
        ),
    }
    for name, product in products.items():
        for rows in (slice(0, 20), slice(20, ROWS)):
            for columns in (slice(0, 17), slice(17, COLUMNS)):
                found = (
                    theta[rows, columns]
                    + product(left.t()[rows].contiguous(), right[:, columns].contiguous()) * unit
                )
                assert same_bits(found, expected[rows, columns].contiguous()), name


@contextmanager
def told(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_products_are_of_whole_float32_whatever_torch_was_told(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU with TF32, and on some processors, this setting drops bits of large products: hence a look inside, too."""
    seen: list[str] = []
    product = torch.mm

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        seen.extend(b.matmul.fp32_precision for b in (torch.backends.cuda, torch.backends.mkldnn))  # type: ignore[attr-defined]
        return product(*args, **kwargs)

    big = RankOne.of("w", torch.zeros(512, 512))
    assert big is not None
    expected, found = torch.zeros(1, 512 * 512), torch.zeros(1, 512 * 512)
    big.add_(expected, 0, SEEDS, SLOPES)
    monkeypatch.setattr(torch, "mm", watched)
    with told(precision), torch.autocast("cpu", torch.bfloat16):
        big.add_(found, 0, SEEDS, SLOPES)
        assert torch.get_float32_matmul_precision() == precision, "what the person chose is left as it was"
    assert same_bits(found, expected)
    assert set(seen) == {"ieee"}


def test_the_older_way_to_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in (torch.backends.cuda, torch.backends.mkldnn):  # torch before 2.9
        monkeypatch.setattr(backend, "matmul", object())
    with told("medium"):
        with rank_one._in_float32():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"


def test_a_scaling_of_all_directions_is_a_factor_of_the_sum() -> None:
    third = Scaling("third", (1 / 3,))
    scaled, plain = (Weights([(NAME, drawn())], kind="rank-one") for _ in range(2))
    scaled.update_(SEEDS, SLOPES, scalings=[third] * len(SEEDS), factor=0.3)
    plain.update_(SEEDS, SLOPES, factor=0.3 * (1 / 3))
    assert scaled.checksum() == plain.checksum()
    apart = Weights([(NAME, drawn())], kind="rank-one")
    apart.update_(SEEDS[:3], SLOPES[:3], scalings=[third, None, Scaling("none", (0.0,))], factor=0.3)
    by_hand = Weights([(NAME, drawn())], kind="rank-one")
    by_hand.update_(SEEDS[:2], [SLOPES[0] * (1 / 3), SLOPES[1]], factor=0.3)
    assert apart.checksum() == by_hand.checksum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounding", ["matched", "stochastic", "nearest"])
def test_many_steps_in_one_pass_are_each_step_to_the_bit(
    dtype: torch.dtype, rounding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"a": (64, 40), "b": (33,), "c": (5, 7, 9), "d": (1, 300)}
    half = Scaling("half", (0.5, 1.0, 0.0, 2.0))
    sums = [
        Sum(
            [s + 100 * step for s in SEEDS],
            SLOPES,
            [half if step % 3 == 2 else None] * len(SEEDS),
            -1e-3,
            decay,
        )
        for step, decay in enumerate((1.0, 0.9, 1.0, 0.99, 0.5))
    ]
    one, many = (Weights([(n, drawn(s, dtype)) for n, s in named.items()], kind="rank-one") for _ in range(2))
    for s in sums:
        one.update_(
            s.seeds, s.coefficients, scalings=s.scalings, factor=s.factor, decay=s.decay, rounding=rounding
        )
    monkeypatch.setattr("mezo.weights.rank_one.BLOCK", 200)  # several blocks, each of whole rows
    monkeypatch.setattr("mezo.weights.multi_step._SIGNS", 4000)  # and the steps in several turns
    update_sequence_(many, sums, rounding=rounding)
    assert many.checksum() == one.checksum()


INTERPRETED = """
import torch
from mezo import noise
from mezo.noise import gpu
from mezo.noise.exact_sums import whole
from mezo.noise.where import Where
from mezo.weights.rank_one import Moved, RankOne, multiply
from tests.weights.test_rank_one import SEEDS, SLOPES, by_product, drawn, low

gpu._LANES = 16
found = low().drawn(Moved(SEEDS, SLOPES, -1e-3), torch.device("cpu"))
signs = {"left": torch.empty_like(found.left), "right": torch.empty_like(found.right)}
for name, rows in signs.items():
    gpu.fill_each_(rows, Where(noise.tensor_id(f"layer.weight/{name}")), SEEDS, "rademacher")
assert torch.equal(signs["left"], low().lefts(SEEDS)[:, 0])
assert torch.equal(signs["right"], low().rights(SEEDS)[:, 0])
q, _ = whole(SLOPES)
product = torch.empty(drawn().shape)
multiply(signs["left"].t(), signs["right"] * torch.tensor(q).float().unsqueeze(1), product)
assert torch.equal(drawn() + product * found.unit, by_product(SEEDS, SLOPES))
print("the same bits")
"""


def test_the_factors_of_the_gpu_s_kernels_lead_to_the_same_bits() -> None:
    pytest.importorskip("triton")
    assert "the same bits" in run(INTERPRETED, TRITON_INTERPRET="1")[0]
