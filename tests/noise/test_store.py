"""Values computed elsewhere, stored with the rounding of an update."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.noise.oracle import DTYPES, index, same_bits, stored
from tests.noise.test_kernels import SEED, devices, dtypes, place, views, weights
from tests.noise.test_properties import cases, seeds

from mezo import noise
from mezo.errors import MezoError
from mezo.noise import spec
from mezo.noise.where import Where

roundings = pytest.mark.parametrize("rounding", ["stochastic", "nearest"])


def expected(
    values: torch.Tensor, dtype: torch.dtype, where: Where, rounding: str, seed: int
) -> torch.Tensor:
    e = index(where, (values.shape[0], values.shape[1]))
    bits = spec.rounding_bits(e, where.tensor_id, seed) if rounding == "stochastic" else None
    return stored(values.numpy(), dtype, bits)


@devices
@roundings
@dtypes
@views
def test_store(view: str, dtype: torch.dtype, rounding: noise.Rounding, device: str) -> None:
    shape, where = place(view)
    values = torch.randn(shape[0], shape[1] + 7, generator=torch.Generator().manual_seed(1))[:, 3:-4]
    w = torch.full(shape, 7.0, dtype=dtype, device=device)
    noise.store_(w, where, values.to(device), rounding=rounding, rounding_seed=SEED)
    assert same_bits(w.cpu(), expected(values, dtype, where, rounding, SEED))


@given(cases(), seeds, st.sampled_from(["stochastic", "nearest"]))
def test_any_view(case: tuple[torch.Tensor, Where], seed: int, rounding: noise.Rounding) -> None:
    w, where = case
    values = w.float() * 1.01
    noise.store_(w, where, values, rounding=rounding, rounding_seed=seed)
    assert same_bits(w, expected(values, w.dtype, where, rounding, seed))


@devices
@roundings
@dtypes
def test_an_update_is_its_float32_sum_stored(
    dtype: torch.dtype, rounding: noise.Rounding, device: str
) -> None:
    where, w = Where(5, 33, 900), weights((6, 700), dtype).to(device)
    exact = w.float()
    noise.update_(exact, where, [1, SEED], [0.1, -1e-3], decay=0.9)
    noise.update_(w, where, [1, SEED], [0.1, -1e-3], decay=0.9, rounding=rounding, rounding_seed=4)
    again = torch.empty_like(w)
    noise.store_(again, where, exact, rounding=rounding, rounding_seed=4)
    assert same_bits(again.cpu(), w.cpu())
    blocks = torch.empty_like(w)  # block by block, as a low-rank update comes
    for top in range(0, 6, 4):
        part = Where(5, 33 + top * 900, 900)
        noise.store_(blocks[top : top + 4], part, exact[top : top + 4], rounding=rounding, rounding_seed=4)
    assert same_bits(blocks.cpu(), w.cpu())


def test_matched_rounding_needs_an_update() -> None:
    for dtype in DTYPES:
        with pytest.raises(MezoError, match="needs to know an update"):
            noise.store_(torch.ones(1, 4, dtype=dtype), Where(1), torch.ones(1, 4), rounding="matched")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (torch.ones(2, 3), "values like the weight"),
        (torch.ones(1, 4, dtype=torch.float64), "float32"),
        (torch.ones(1, 4, dtype=torch.bfloat16), "float32"),
        (torch.ones(1, 8)[:, ::2], "columns side by side"),
    ],
)
def test_values_are_float32_like_the_weight(values: torch.Tensor, words: str) -> None:
    w = torch.zeros(1, 4, dtype=torch.bfloat16)
    with pytest.raises(MezoError, match=words):
        noise.store_(w, Where(1), values)
    assert not w.any()
