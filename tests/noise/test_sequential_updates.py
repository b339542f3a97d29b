"""Many updates in one pass over memory, against one pass for each."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.noise.oracle import DTYPES, KINDS, same_bits, updated
from tests.noise.test_properties import cases, coefficients, seeds

from mezo import noise
from mezo.errors import MezoError
from mezo.noise import Step, TensorGroup
from mezo.noise.where import Where

ROUNDINGS: tuple[noise.Rounding, ...] = ("matched", "stochastic", "nearest")
directions = st.lists(st.tuples(seeds, coefficients), max_size=3)


@st.composite
def some_steps(draw: st.DrawFn) -> list[Step]:
    found = []
    for _ in range(draw(st.integers(0, 4))):
        pairs = draw(directions)
        decay, key = draw(st.sampled_from([1.0, 0.75]) | st.floats(0.5, 1, width=32)), draw(seeds)
        found.append(Step([seed for seed, _ in pairs], [a for _, a in pairs], decay, key))
    return found


@given(cases(), some_steps(), st.sampled_from(KINDS), st.sampled_from(ROUNDINGS))
def test_is_the_specification_step_by_step(
    case: tuple[torch.Tensor, Where], steps: list[Step], kind: noise.Kind, rounding: noise.Rounding
) -> None:
    w, where = case
    expected = w
    for s, a, decay, key in steps:
        expected = updated(
            expected, where, s, a, decay=decay, rounding=rounding, rounding_seed=key, kind=kind
        )
    noise.update_sequence_(TensorGroup([w], [where]), [steps], rounding=rounding, kind=kind)
    assert same_bits(w, expected)


def tensors(dtype: torch.dtype) -> list[torch.Tensor]:
    """A long row of several pieces, short ones, a vector, a scalar."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator).to(dtype) for shape in ((3, 20000), (40, 30), (70,), (5, 5))
    ]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tensor_of_a_group_has_steps_of_its_own(
    dtype: torch.dtype, kind: noise.Kind, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    wheres = [Where(1), Where(2, 77, 100), Where(3, 2040), Where(4, 1)]
    many = [Step([i, 2**64 - 1 - i][: 1 + i % 2], [1e-3, -2e-3][: 1 + i % 2], 1.0, i) for i in range(6)]
    own = [many, many, [Step([9], [0.5], 0.9, 3)], []]
    one_by_one, together = tensors(dtype), tensors(dtype)
    for w, where, steps in zip(one_by_one, wheres, own, strict=True):
        view = w if w.dim() == 2 else w.view(1, -1)
        for s, a, decay, key in steps:
            noise.update_(view, where, s, a, decay=decay, rounding="matched", rounding_seed=key, kind=kind)
    noise.update_sequence_(TensorGroup(together, wheres), own, rounding="matched", kind=kind)
    assert all(same_bits(a, b) for a, b in zip(one_by_one, together, strict=True))


def test_refuses_what_does_not_fit() -> None:
    group = TensorGroup([torch.zeros(2, 2)], [Where(1)])
    with pytest.raises(MezoError, match="expected 1 lists of steps, one for each tensor, found 2"):
        noise.update_sequence_(group, [[], []])
    with pytest.raises(MezoError, match="expected a coefficient for each seed, found 1 for 2"):
        noise.update_sequence_(group, [[Step([1, 2], [0.1])]])
    with pytest.raises(MezoError, match="rounding"):
        noise.update_sequence_(group, [[Step([1], [0.1])]], rounding="up")  # type: ignore[arg-type]
