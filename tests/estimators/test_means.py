"""What each estimator estimates: the mean of many estimates against autograd."""

from collections.abc import Sequence
from functools import cache
from math import pi, sqrt

import pytest
import torch
from tests.tiers import mostly_slow

from mezo import noise
from mezo.config import MeZOConfig
from mezo.estimators import ESTIMATORS, build
from mezo.estimators.base import losses_of
from mezo.noise.where import Where
from mezo.types import Direction, Draw, Probe, Scaling
from mezo.weights.weights import Weights

SIZES = {"layers.0.weight": 16, "layers.1.weight": 4}
MANY = 10_000
DRAW = Draw(0, tuple(range(1, MANY + 1)))
KINDS: tuple[noise.Kind, ...] = ("gaussian", "rademacher")
# of the mean, where it is not the gradient's own length; the mean of |g z| over Gaussian z is that of
# a normal's magnitude, sqrt(2 / pi), and one and the same estimate divided by its spread is of length 1
LENGTHS = {"sign": sqrt(2 / pi), "fzoo": 1.0, "es": 1.0}


def theta() -> torch.Tensor:
    return torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def weights() -> Weights:
    return Weights(
        zip(SIZES, (t.float().contiguous() for t in theta().split(list(SIZES.values()))), strict=True)
    )


def loss(points: torch.Tensor) -> torch.Tensor:
    """(P, 20) -> (P,): a small network in float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, dtype=torch.float64, generator=generator)
    y = torch.randn(30, dtype=torch.float64, generator=generator)
    hidden = torch.tanh(x @ points[..., :16].view(-1, 4, 4))
    return ((hidden @ points[..., 16:].view(-1, 4, 1)).squeeze(-1) - y).square().mean(-1)


def gradient() -> torch.Tensor:
    point = theta().requires_grad_(True)
    loss(point).sum().backward()
    assert point.grad is not None
    return point.grad


@cache
def noises(kind: noise.Kind) -> torch.Tensor:
    """(MANY + 1, 20): z of every seed."""
    out = torch.zeros(MANY + 1, 20)
    for seed in range(MANY + 1):
        start = 0
        for name, size in SIZES.items():
            noise.fill_(
                out[seed : seed + 1, start : start + size], Where(noise.tensor_id(name)), seed, kind=kind
            )
            start += size
    return out.double()


def factors(scaling: Scaling | None) -> torch.Tensor:
    own = scaling.factors if scaling else (1.0,) * len(SIZES)
    return torch.cat(
        [torch.full((n,), f, dtype=torch.float64) for n, f in zip(SIZES.values(), own, strict=True)]
    )


def along(items: Sequence[Probe] | Sequence[Direction], sizes: list[float], kind: noise.Kind) -> torch.Tensor:
    """(len(items), 20): size * scaling * z of each."""
    rows = {scaling: factors(scaling) for scaling in {item.scaling for item in items}}
    scaled = torch.stack([rows[item.scaling] for item in items]) * noises(kind)[[item.seed for item in items]]
    return torch.tensor(sizes, dtype=torch.float64)[:, None] * scaled


def mean_estimate(kind: noise.Kind = "gaussian", **settings: object) -> torch.Tensor:
    config = MeZOConfig.build(epsilon=1e-4, num_directions=2, noise=kind, **settings)
    estimator = build(config, weights())
    state = estimator.init()
    for _ in range(2):  # twice, for the sake of those that remember the step before
        losses = losses_of(
            estimator,
            DRAW,
            state,
            lambda probes: loss(theta() + along(probes, [p.scale for p in probes], kind)).tolist(),
        )
        values, state = estimator.tell(DRAW, losses, state)
    directions = estimator.directions(DRAW, values)
    assert len(directions) == sum(estimator.are_slopes(MANY))
    return along(directions, [d.projected_grad for d in directions], kind).sum(0) / MANY


def check(found: torch.Tensor, expected: torch.Tensor) -> None:
    """E[z z^T] = I, and the mean of N estimates strays from the gradient by about sqrt((d + 1) / N) of
    its length: 0.046 here, a cosine of 0.999."""
    assert float(torch.cosine_similarity(found, expected, dim=0)) > 0.99
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", mostly_slow(sorted(ESTIMATORS), lambda name: name == "two-point"))
def test_the_mean_of_many_estimates_is_the_gradient(name: str, kind: noise.Kind) -> None:
    expected = gradient()
    if name in LENGTHS:
        expected = expected / expected.norm() * LENGTHS[name]
    found = mean_estimate(kind, estimator=name)
    if name == "sign" and kind == "rademacher":
        # E[sign(g z) z] points almost along the gradient only for Gaussian z: large components are favoured
        assert float(torch.cosine_similarity(found, expected, dim=0)) > 0.9
        return
    check(found, expected)


@pytest.mark.parametrize(
    "name", mostly_slow(["two-point", "one-sided", "one-point"], lambda name: name == "two-point")
)
def test_a_slope_for_every_layer(name: str) -> None:
    check(mean_estimate(estimator=name, blocks="each"), gradient())


@pytest.mark.parametrize(("step", "part"), [(0, slice(0, 16)), (1, slice(16, 20))])
def test_a_block_estimates_its_part_of_the_gradient(
    step: int, part: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.DRAW", Draw(step, DRAW.seeds))
    found, expected = mean_estimate(blocks="round-robin"), torch.zeros(20, dtype=torch.float64)
    expected[part] = gradient()[part]
    check(found, expected)
    assert torch.equal(found == 0, expected == 0)


def test_variance_modified_spsa_estimates_the_gradient() -> None:
    """Definition 6: perturbed along z / d, applied along d z, the mean is the gradient's."""
    check(mean_estimate(layer_scaling="variance"), gradient())


def test_expectation_modified_spsa_estimates_a_normalised_gradient() -> None:
    """Definition 7: applied along z, each tensor's part is divided by its d, its norm over the mean norm."""
    norms = [float(t.norm()) for t in theta().split(list(SIZES.values()))]
    middle = sqrt(norms[0] * norms[1])
    d = torch.cat([torch.full((n,), v / middle) for n, v in zip(SIZES.values(), norms, strict=True)])
    # d is kept to 3 digits, 0.5% at most
    check(mean_estimate(layer_scaling="expectation"), gradient() / d)
    assert not torch.allclose(d, torch.ones(20), atol=0.1), "the two tensors differ enough to tell"
