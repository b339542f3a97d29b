"""The fit behind `start=linear-probe`: it minimises the objective that is tuned, and the base is where a ridge leads."""

import numpy as np
import pytest
import torch
from tests.tiny_models import tiny

from mezo.build.label_fit import RIDGES, FrozenFeatures, fit_rows, minimised
from mezo.engines.transformers.engine import TransformersEngine
from mezo.engines.transformers.head_inputs import head_inputs
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.scoring import Example, pose
from mezo.tuning.label_rows import LabelRows, write_rows
from mezo.weights.weights import Weights

LOSS = OBJECTIVES["candidate-ce"]


def features(count: int = 60, seed: int = 0) -> FrozenFeatures:
    """Two classes, whose features differ in one direction; the base favours the first."""
    generator = torch.Generator().manual_seed(seed)
    right = torch.arange(count) % 2
    hidden = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    hidden[:, 0] += 3.0 * (2 * right - 1)
    logits = torch.randn(count, 5, generator=generator, dtype=torch.float64) + torch.tensor([2.0, 0, 0, 0, 0])
    first = logits.log_softmax(1)[:, :2]
    rest = torch.zeros_like(first)
    return FrozenFeatures(
        hidden, first, rest, torch.nn.functional.one_hot(right).bool(), torch.ones(2).double()
    )


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_the_losses_of_a_change_are_those_of_the_engine_with_the_rows_written(name: str, plain: bool) -> None:
    model, masked = tiny(name), name == "bert"
    generator = np.random.default_rng(0)
    prompts = [tuple(map(int, generator.integers(5, 250, n))) for n in (3, 9, 5, 7, 4, 6)]
    examples = [
        Example(p, ((251,), (252,), (253,)), n % 3, mask_position=1 if masked else None)
        for n, p in enumerate(prompts)
    ]
    engine = TransformersEngine(
        model,
        Weights(model.named_parameters()),
        LOSS,
        SGD(),
        kind="masked" if masked else "causal",
        pad_token_id=0,
        probes=False,
        disable_shortcuts=("all",) if plain else (),
    )
    assert engine.form.plain == plain
    batch = pose(examples)
    logprobs, hidden = head_inputs(engine, batch)
    first = torch.from_numpy(logprobs.reshape(6, 3))
    right = torch.nn.functional.one_hot(torch.arange(6) % 3).bool()
    known = FrozenFeatures(
        torch.from_numpy(hidden.reshape(6, 3, -1)[:, 0]).double(),
        first,
        torch.zeros_like(first),
        right,
        torch.ones(3).double(),
    )
    assert float(known.losses().mean()) == pytest.approx(LOSS(batch, logprobs), rel=1e-9)
    change = 0.3 * torch.randn(3, hidden.shape[1], generator=torch.Generator().manual_seed(1))
    write_rows(model, LabelRows(torch.tensor([251, 252, 253]), change))
    moved = engine.logprobs(batch)[0]
    # the engine's logits are float32, of order 10
    expected = known.first + known.hidden @ change.T.double()
    others = torch.log1p(-known.first.exp().sum(1))
    expected = expected - torch.logaddexp(others, expected.logsumexp(1)).unsqueeze(1)
    np.testing.assert_allclose(moved.reshape(6, 3), expected.numpy(), atol=2e-5)
    assert float(known.losses(change.double()).mean()) == pytest.approx(LOSS(batch, moved), abs=2e-5)


def test_later_tokens_are_held_fixed_and_each_score_is_a_mean() -> None:
    known = features(2)
    known = FrozenFeatures(
        known.hidden,
        known.first,
        torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]).double(),
        known.right,
        torch.tensor([2.0, 3.0]).double(),
    )
    assert torch.allclose(
        known.scores()[1], (known.first[1] + torch.tensor([-3.0, -4.0])) / torch.tensor([2.0, 3.0])
    )


def test_the_fit_lowers_the_loss_of_examples_that_it_did_not_see() -> None:
    known, unseen = features(), features(400, seed=1)
    fit = fit_rows(known)
    assert fit.change is not None
    assert float(unseen.losses(fit.change).mean()) < 0.5 * float(unseen.losses().mean())
    assert fit.losses[0] == pytest.approx(float(known.losses().mean()))
    # what cross-validation says of unseen examples is about what they say
    assert fit.losses[1] == pytest.approx(float(unseen.losses(fit.change).mean()), abs=0.1)


def test_each_ridge_is_at_its_minimum_and_a_large_one_is_the_base() -> None:
    known = features()
    scale, change, sizes = known.hidden.square().mean(0).sqrt(), torch.zeros(2, 6).double(), []
    for ridge in RIDGES:
        change = minimised(known, change, ridge).requires_grad_(True)
        value = known.losses(change).mean() + ridge / (2 * len(known)) * (change * scale).square().sum()
        (slope,) = torch.autograd.grad(value, change)
        assert float((slope / scale).abs().max()) < 1e-4
        change = change.detach()
        sizes.append(float((change * scale).norm()))
    assert sizes == sorted(sizes)
    far = minimised(known, torch.zeros(2, 6).double(), 1e9)
    assert float(far.abs().max()) < 1e-6


def test_labels_without_meaning_leave_the_base_as_it_is() -> None:
    known = features(40)
    even = FrozenFeatures(
        torch.randn(40, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64),
        torch.full((40, 2), -3.0, dtype=torch.float64),
        known.rest,
        torch.nn.functional.one_hot(
            torch.randint(0, 2, (40,), generator=torch.Generator().manual_seed(4))
        ).bool(),
        known.lengths,
    )
    fit = fit_rows(even)
    assert fit.change is None
    assert fit.losses == (pytest.approx(np.log(2)), pytest.approx(np.log(2)))
