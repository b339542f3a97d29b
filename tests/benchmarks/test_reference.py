"""What we are measured against computes the same things."""

import pytest
import torch
from benchmarks.reference import Padded, reference_step
from benchmarks.workload import Tuned, full_batch
from tests.tiny_models import VOCABULARY, tiny

from mezo.objectives import OBJECTIVES
from mezo.scoring import Example
from mezo.types import THETA
from mezo.weights.weights import Weights

BATCH = [
    Example((1, 5, 6, 7), ((20,), (21,)), 1),
    Example((1, 9), ((30, 31, 32), (33, 34)), 0),
    Example((1, 8, 8, 8, 8, 8), ((40, 41), (40, 42, 43)), 1),
]


@pytest.mark.parametrize("name", ["llama-tied", "opt"])
@pytest.mark.parametrize("objective", ["answer-ce", "candidate-ce"])
def test_its_loss_is_the_engines(name: str, objective: str) -> None:
    model = tiny(name)
    padded = Padded(BATCH, OBJECTIVES[objective], pad=0)
    (ours,) = Tuned(model, Weights(model.named_parameters()), 0).engine(objective).losses(BATCH, [THETA])
    assert float(padded.loss(model)) == pytest.approx(ours, rel=1e-5)


def test_synthetic_rows_are_scored_everywhere() -> None:
    padded = Padded(full_batch(VOCABULARY, batch_size=3, length=8), OBJECTIVES["answer-ce"], pad=0)
    assert padded.ids.shape == (3, 7)  # the last token is asked for, not fed
    assert len(padded.token) == 21
    assert bool(padded.mask.all())


def test_a_step_moves_theta_along_its_noise() -> None:
    theta = torch.nn.Parameter(torch.zeros(50, dtype=torch.float64), requires_grad=False)
    slope = torch.linspace(-1, 1, 50, dtype=torch.float64)
    found = reference_step([theta], lambda: slope @ theta, lr=0.1, eps=1e-3, seed=3)
    torch.manual_seed(3)
    z = torch.normal(mean=0, std=1, size=theta.size(), dtype=theta.dtype)
    assert found == pytest.approx(float(slope @ z), rel=1e-9)
    assert torch.allclose(theta, -0.1 * found * z, rtol=1e-9, atol=1e-12)


def test_a_step_of_no_width_and_rate_leaves_the_weights() -> None:
    model = tiny("llama")
    before = {name: p.clone() for name, p in model.named_parameters()}
    padded = Padded(BATCH, OBJECTIVES["candidate-ce"], pad=0)
    reference_step(model.parameters(), lambda: padded.loss(model), lr=0.0, eps=0.0, seed=0)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
