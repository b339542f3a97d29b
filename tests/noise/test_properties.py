"""Any view, any seed: the kernels and the specification agree on every bit."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.noise.oracle import DTYPES, KINDS, perturbed, same_bits, updated

from mezo import noise
from mezo.noise.where import Where

seeds = st.integers(0, 2**64 - 1)
coefficients = st.floats(-10, 10, width=32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, Where]:
    rows, cols = draw(st.integers(0, 4)), draw(st.integers(0, 600))
    row_stride = draw(st.none() | st.integers(cols, 5000))
    where = Where(draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**50)), row_stride)
    gap = draw(st.integers(0, 9))
    w = torch.randn(rows, cols + gap, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    return w.to(draw(st.sampled_from(DTYPES)))[:, :cols], where


@given(cases(), st.lists(st.tuples(seeds, coefficients), max_size=3), st.sampled_from(KINDS), st.data())
def test_update(
    case: tuple[torch.Tensor, Where],
    directions: list[tuple[int, float]],
    kind: noise.Kind,
    data: st.DataObject,
) -> None:
    w, where = case
    decay = data.draw(st.floats(0.5, 1, width=32))
    rounding: noise.Rounding = data.draw(st.sampled_from(["matched", "stochastic", "nearest"]))
    key = data.draw(seeds)
    s, a = [seed for seed, _ in directions], [c for _, c in directions]
    expected = updated(w, where, s, a, decay=decay, rounding=rounding, rounding_seed=key, kind=kind)
    noise.update_(w, where, s, a, decay=decay, rounding=rounding, rounding_seed=key, kind=kind)
    assert same_bits(w, expected)


@given(cases(), seeds, coefficients, st.sampled_from(KINDS))
def test_perturb(case: tuple[torch.Tensor, Where], seed: int, scale: float, kind: noise.Kind) -> None:
    w, where = case
    expected = [perturbed(w, where, seed, sign * scale, kind) for sign in (1, -1)]
    plus, minus = torch.empty(w.shape, dtype=w.dtype), torch.empty(w.shape, dtype=w.dtype)
    noise.perturb_pair(w, where, seed, scale, plus, minus, kind=kind)
    assert same_bits(plus, expected[0])
    assert same_bits(minus, expected[1])
    noise.perturb(w, where, seed, scale, w, kind=kind)
    assert same_bits(w, expected[0])
