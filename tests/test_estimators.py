"""Estimators against autograd and against their own definitions."""

import math

import numpy as np
import pytest
import torch

from mezo import noise
from mezo.estimators import ESTIMATORS, Normalized, TwoPoint
from mezo.noise import Where
from mezo.weights import Weights


def z(seed: int, size: int) -> torch.Tensor:
    out = torch.empty(1, size)
    noise.fill_(out, Where(noise.tensor_id("w")), seed)
    return out[0].double()


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_the_mean_of_many_estimates_is_the_gradient(name: str) -> None:
    """A small network in float64, 20 parameters, 40,000 directions.

    E[z z^T] = I, and the mean of N estimates strays from the gradient by about sqrt((d + 1) / N) of
    its length: 0.023 here, a cosine of 0.9997.
    """
    torch.manual_seed(0)
    d, n = 20, 40_000
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.randn(30, dtype=torch.float64)

    def loss(theta: torch.Tensor) -> torch.Tensor:
        return (
            (
                (torch.tanh(x @ theta[..., :16].view(-1, 4, 4)) @ theta[..., 16:].view(-1, 4, 1)).squeeze(-1)
                - y
            )
            .square()
            .mean(-1)
        )

    theta = torch.randn(d, dtype=torch.float64, requires_grad=True)
    loss(theta).sum().backward()
    estimator = ESTIMATORS[name](epsilon=1e-4)  # type: ignore[call-arg]
    directions = torch.stack([z(seed, d) for seed in range(n)])
    probes = estimator.ask(range(n))
    with torch.no_grad():
        points = torch.stack([theta + p.scale * directions[p.seed] for p in probes])
        losses = loss(points).tolist()
    slopes = torch.tensor([g.projected_grad for g in estimator.tell(probes, losses)], dtype=torch.float64)
    mean = (slopes[:, None] * directions).mean(0)
    assert theta.grad is not None
    assert float(torch.cosine_similarity(mean, theta.grad, dim=0)) > 0.99
    assert float(mean.norm() / theta.grad.norm()) == pytest.approx(1, abs=0.05)


def test_two_point_by_hand() -> None:
    estimator = TwoPoint(epsilon=0.5)
    probes = estimator.ask([3, 4])
    assert [(p.seed, p.scale) for p in probes] == [(3, 0.5), (3, -0.5), (4, 0.5), (4, -0.5)]
    found = estimator.tell(probes, [2.0, 1.0, 0.25, 0.5])
    assert [(d.seed, d.projected_grad) for d in found] == [(3, 1.0), (4, -0.25)]


def test_slopes_are_what_a_trajectory_can_hold() -> None:
    estimator = TwoPoint(epsilon=1e-3)
    slope = estimator.tell(estimator.ask([1]), [0.1, 0.3])[0].projected_grad
    assert slope == float(np.float32(slope))


def test_a_slope_too_large_for_float32_is_infinite_not_an_exception() -> None:
    estimator = TwoPoint(epsilon=1e-30)
    assert estimator.tell(estimator.ask([1]), [1e20, 0.0])[0].projected_grad == math.inf


def test_normalized_walks_along_unit_vectors() -> None:
    """On a linear loss c.theta the slope along z/||z|| is c.z/||z||, and the step lr times that."""
    d = 500
    weights = Weights([("w", torch.zeros(d))])
    estimator = Normalized(TwoPoint(epsilon=0.1), weights.norm)
    c = torch.linspace(-1, 1, d, dtype=torch.float64)
    probes = estimator.ask([11])
    unit = z(11, d) / z(11, d).norm()
    points = [p.scale * z(p.seed, d) for p in probes]
    # ||z|| comes from z rounded to 1/4096: relative error below 1e-5
    torch.testing.assert_close(points[0], 0.1 * unit, rtol=1e-5, atol=0)
    found = estimator.tell(probes, [float(c @ p) for p in points])[0]
    assert found.projected_grad * float(z(11, d).norm()) == pytest.approx(float(c @ unit), rel=1e-4)
