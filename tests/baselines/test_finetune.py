"""Backpropagation: the step is torch's, the run leaves what a run of MeZO leaves."""

from pathlib import Path

import pytest
import torch
from tests.baselines import toy
from tests.tiny_models import tiny

from mezo.algorithm import NonFiniteLoss
from mezo.api import evaluate
from mezo.baselines.finetune import OPTIMIZERS, FineTuner, finetune
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.runs.summary import read_summary
from mezo.tuning import TUNING


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.reviews(tmp_path_factory.mktemp("data") / "reviews")


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_step_of_sgd_is_torchs_gradient_by_hand(base: Path, data: Path, accumulated: int) -> None:
    config = toy.config(base, data, learning_rate=0.1, gradient_accumulation=accumulated)
    tuner = FineTuner(config, optimizer="sgd", max_grad_norm=0)
    batch = tuner.train_set.batch(0, 4 * accumulated, config.seed)
    record = tuner.step(0)

    model = tiny("llama").requires_grad_(True)
    losses = []
    for example in batch:
        logits = model(input_ids=torch.tensor([example.prompt])).logits[0, -1]
        words = torch.tensor([c[0] for c in example.candidates])
        losses.append(torch.nn.functional.cross_entropy(logits[words][None], torch.tensor([example.answer])))
    loss = torch.stack(losses).mean()
    loss.backward()
    # both are sums of the same float32 terms in different orders, relative to the largest: tens of 1.2e-7
    assert record.loss == pytest.approx(loss.item(), rel=1e-5)
    for (name, tuned), p in zip(tuner.model.named_parameters(), model.parameters(), strict=True):
        assert p.grad is not None
        expected = p.detach() - 0.1 * p.grad
        scale = float(p.detach().abs().max()) * 1.2e-7 + 0.1 * float(p.grad.abs().max()) * 1e-5
        torch.testing.assert_close(tuned.detach(), expected, rtol=0, atol=2 * scale, msg=name)
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert record.projected_grads[0] == pytest.approx(float(norm), rel=1e-4)


def test_the_gradient_is_clipped_to_the_norm(base: Path, data: Path) -> None:
    config = toy.config(base, data, learning_rate=1.0)
    tuner = FineTuner(config, optimizer="sgd", max_grad_norm=1e-3)
    before = [p.detach().clone() for p in tuner.parameters]
    tuner.step(0)
    moved = torch.stack(
        [(p.detach() - b).norm() for p, b in zip(tuner.parameters, before, strict=True)]
    ).norm()
    # weights of order 1 keep moves of 1e-3 over 30,000 elements to about 6e-8 * sqrt(30,000) = 1e-5
    assert float(moved) == pytest.approx(1e-3, abs=3e-5)


@pytest.mark.slow
@pytest.mark.parametrize("tuning", TUNING)
def test_a_run_descends_and_can_be_evaluated_again(
    base: Path, data: Path, tmp_path: Path, tuning: str
) -> None:
    rate = 1e-1 if tuning == "prefix" else 1e-2
    config = toy.config(
        base, data, tuning=tuning, num_steps=30, learning_rate=rate, eval_every=10, schedule="linear"
    )
    result = finetune(config, output=tmp_path / "run")
    assert result.evals[-1].loss < result.evals[0].loss - 0.1
    assert [e.step for e in result.evals] == [0, 10, 20, 30]

    run = RunFolder.open(tmp_path / "run")
    metrics = read_metrics(run.metrics)
    assert metrics.steps == result.steps
    assert metrics.evals == result.evals
    summary = read_summary(run.path)
    assert summary is not None
    assert summary.method == f"AdamW {tuning}"
    assert (run.plots / "overview.png").exists()
    saved = MeZOConfig.load(run.config)
    assert saved == config.model_copy(update={"optimizer": "adamw"})

    adapter = run.adapter if config.saves_adapter else None
    again = evaluate(
        saved if adapter else saved.model_copy(update={"model": str(run.model)}), adapter=adapter
    )
    # the same float32 weights, from a file
    assert again["loss"] == pytest.approx(result.evals[-1].loss, rel=1e-5)
    assert again["accuracy"] == result.evals[-1].accuracy


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_order_of_examples_is_that_of_mezo(base: Path, data: Path, optimizer: str) -> None:
    from mezo.training.trainer import MeZOTrainer

    config = toy.config(base, data)
    tuner, trainer = FineTuner(config, optimizer=optimizer), MeZOTrainer(config)
    for step in range(3):
        assert tuner.train_set.batch(step, 4, config.seed) == trainer.train_set.batch(step, 4, config.seed)


def test_a_masked_model_is_tuned_too(tmp_path: Path, data: Path) -> None:
    config = toy.config(toy.base(tmp_path / "base", "roberta"), data, num_steps=20, learning_rate=3e-3)
    result = finetune(config)
    assert result.evals[-1].loss < result.evals[0].loss


def test_an_objective_without_a_gradient_is_refused(base: Path, data: Path) -> None:
    with pytest.raises(
        MezoError, match=r"unknown differentiable objective 'accuracy'.*answer-ce, candidate-ce"
    ):
        FineTuner(toy.config(base, data, objective="accuracy"))


def test_an_unknown_optimizer_is_refused(base: Path, data: Path) -> None:
    with pytest.raises(MezoError, match=r"unknown optimizer 'adam'; did you mean 'adamw'"):
        FineTuner(toy.config(base, data), optimizer="adam")


def test_a_loss_that_is_not_finite_stops_the_run_with_what_there_is(
    base: Path, data: Path, tmp_path: Path
) -> None:
    config = toy.config(base, data, learning_rate=1e30, num_steps=20)
    with pytest.raises(NonFiniteLoss, match=r"step \d+: the loss is not finite"):
        finetune(config, optimizer="sgd", max_grad_norm=0, output=tmp_path / "run")
    assert read_summary(tmp_path / "run") is not None
    assert len(read_metrics(RunFolder(tmp_path / "run").metrics).evals) == 1
