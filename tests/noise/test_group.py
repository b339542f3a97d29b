"""Many tensors in one kernel call: the bits of one call each."""

from collections.abc import Sequence

import pytest
import torch
from tests.noise.oracle import DTYPES, KINDS, same_bits

from mezo import noise
from mezo.errors import MezoError
from mezo.noise.where import Where

DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))
kinds = pytest.mark.parametrize("kind", KINDS)
devices = pytest.mark.parametrize("device", DEVICES)

# Small ones whole, larger ones in pieces, any number of dimensions, none of any element.
SHAPES = ((8, 57), (1,), (300, 200), (130_000,), (0, 4), (3, 40_000), (5, 6, 7), (2, 1), (0,))


def tensors(device: str = "cpu") -> tuple[list[torch.Tensor], list[Where]]:
    """Each shape in each dtype; the last are columns of a wider tensor, and know it."""
    made = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=made).to(device, dtype) for shape in SHAPES for dtype in DTYPES]
    wheres = [Where(i, 1000 * i) for i in range(len(weights))]
    for dtype in DTYPES:
        weights.append(torch.randn(6, 500, generator=made).to(device, dtype)[:, 70:300])
        wheres.append(Where(len(wheres), 70, 500))
    return weights, wheres


def view(weight: torch.Tensor) -> torch.Tensor:
    return weight if weight.dim() == 2 else weight.view(1, -1)


def same(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> bool:
    return all(same_bits(a.cpu(), b.cpu()) for a, b in zip(found, expected, strict=True))


@devices
@kinds
@pytest.mark.parametrize("rounding", ["matched", "stochastic", "nearest"])
@pytest.mark.parametrize(("seeds", "coefficients"), [([3], [-2e-3]), ([1, 2**64 - 1, 9], [0.1, -0.2, 1e-4])])
def test_update(
    seeds: list[int], coefficients: list[float], rounding: noise.Rounding, kind: noise.Kind, device: str
) -> None:
    weights, wheres = tensors(device)
    expected, _ = tensors(device)
    decays = [1.0 if i % 2 else 0.9 for i in range(len(weights))]
    for weight, where, decay in zip(expected, wheres, decays, strict=True):
        settings = dict(decay=decay, rounding=rounding, rounding_seed=2**63 + 5, kind=kind)
        noise.update_(view(weight), where, seeds, coefficients, **settings)  # type: ignore[arg-type]
    group = noise.TensorGroup(weights, wheres)
    noise.update_all_(
        group, seeds, coefficients, decays=decays, rounding=rounding, rounding_seed=2**63 + 5, kind=kind
    )
    assert same(weights, expected)


@devices
@kinds
def test_perturb(kind: noise.Kind, device: str) -> None:
    weights, wheres = tensors(device)
    group = noise.TensorGroup(weights, wheres)
    plus, minus, out = ([torch.empty_like(w) for w in weights] for _ in range(3))
    up, down = ([torch.empty_like(w) for w in weights] for _ in range(2))
    for where, weight, p, m in zip(wheres, weights, up, down, strict=True):
        noise.perturb_pair(view(weight), where, 5, 1e-2, view(p), view(m), kind=kind)
    noise.perturb_pair_all(group, 5, 1e-2, plus, minus, kind=kind)
    noise.perturb_all(group, 5, 1e-2, out, kind=kind)
    assert same(plus, up)
    assert same(minus, down)
    assert same(out, up)
    noise.perturb_all(group, 5, 1e-2, group.weights, kind=kind)  # the in-place walk
    assert same(weights, up)


@devices
def test_outputs_may_have_strides_of_their_own(device: str) -> None:
    weights = [torch.randn(6, 90, device=device) for _ in range(3)]
    wheres = [Where(i) for i in range(3)]
    wide = [torch.zeros(6, 200, device=device) for _ in range(3)]
    inner, plain = [w[:, 50:140] for w in wide], [torch.empty_like(w) for w in weights]
    noise.perturb_pair_all(noise.TensorGroup(weights, wheres), 5, 0.1, inner, plain)
    for weight, where, p, m in zip(weights, wheres, inner, plain, strict=True):
        up, down = torch.empty_like(weight), torch.empty_like(weight)
        noise.perturb_pair(weight, where, 5, 0.1, up, down)
        assert same([p, m], [up, down])
    for w, i in zip(wide, inner, strict=True):
        i.zero_()
        assert not w.any()


@devices
def test_memory_that_moves_is_found_again(device: str) -> None:
    weight = torch.nn.Parameter(torch.zeros(4, 100, device=device))
    group = noise.TensorGroup([weight], [Where(1)])
    noise.update_all_(group, [2], [1.0])
    once, old = weight.detach().clone(), weight.data
    for dtype in (torch.float32, torch.float16):
        weight.data = torch.zeros(4, 100, device=device, dtype=dtype)
        noise.update_all_(group, [2], [1.0], rounding="nearest")
        assert torch.equal(weight.detach(), once.to(dtype))
    assert torch.equal(old, once)


def test_an_empty_group_is_no_mistake() -> None:
    group = noise.TensorGroup([], [])
    noise.update_all_(group, [1], [1.0], decays=[])
    noise.perturb_pair_all(group, 1, 1.0, [], [])


W = [Where(1), Where(2)]
MISTAKES = {
    "a place too few": ("a place for each tensor", lambda: noise.TensorGroup([torch.ones(2)], [])),
    "a decay too few": (
        "expected 2 decays",
        lambda: noise.update_all_(
            noise.TensorGroup([torch.ones(2), torch.ones(3)], W), [1], [1.0], decays=[1.0]
        ),
    ),
    "a coefficient too few": (
        "coefficient for each seed",
        lambda: noise.update_all_(noise.TensorGroup([torch.ones(2)], W[:1]), [1, 2], [1.0]),
    ),
    "an output too few": (
        "expected 2 outputs",
        lambda: noise.perturb_all(
            noise.TensorGroup([torch.ones(2), torch.ones(3)], W), 1, 1.0, [torch.ones(2)]
        ),
    ),
    "another shape": (
        "like the weight",
        lambda: noise.perturb_all(noise.TensorGroup([torch.ones(2)], W[:1]), 1, 1.0, [torch.ones(3)]),
    ),
    "another dtype": (
        "like the weight",
        lambda: noise.perturb_all(noise.TensorGroup([torch.ones(2)], W[:1]), 1, 1.0, [torch.ones(2).half()]),
    ),
    "transposed": (
        "columns side by side",
        lambda: noise.update_all_(noise.TensorGroup([torch.ones(3, 4).T], W[:1]), [1], [1.0]),
    ),
    "apart in memory": (
        "2-D view",
        lambda: noise.update_all_(noise.TensorGroup([torch.ones(8)[::2]], W[:1]), [1], [1.0]),
    ),
    "float64": (
        "float32, bfloat16 or float16",
        lambda: noise.update_all_(noise.TensorGroup([torch.ones(4).double()], W[:1]), [1], [1.0]),
    ),
    "unknown noise": (
        "did you mean 'gaussian'",
        lambda: noise.update_all_(
            noise.TensorGroup([torch.ones(4)], W[:1]),
            [1],
            [1.0],
            kind="gausian",  # type: ignore[arg-type]
        ),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str) -> None:
    words, make = MISTAKES[mistake]
    with pytest.raises(MezoError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
