"""Estimators in runs of tiny models: from config to files and back, and behind `mezo.MeZO`."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiers import mostly_slow
from tests.tiny_models import same_files, tiny
from tests.toys import byte_tokenizer
from torch import nn

import mezo
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.estimators import ESTIMATORS
from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.training.trainer import MeZOTrainer
from mezo.types import Direction

ROWS = [
    {"sentence": s, "label": int(s.startswith("g"))}
    for s in ("gab", "hat", "gig", "hub", "get", "him", "god", "hen") * 4
]
AROUND: dict[str, dict[str, Any]] = {
    "alone": {},
    "blocks": {"blocks": "random", "layers_per_step": 2, "normalize_perturbations": True},
    "each": {"blocks": "each", "clip_quantile": 0.5},
    "scaled": {"layer_scaling": "variance", "noise": "rademacher", "dtype": "bfloat16"},
    "adapter": {"tuning": "lora", "optimizer": "adam"},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama and its tokenizer as a folder, as a hub model would be."""
    folder = tmp_path_factory.mktemp("estimators") / "base"
    tiny("llama").save_pretrained(folder)
    byte_tokenizer(words=(" great", " terrible")).save_pretrained(folder)
    return folder


def run(base: Path, output: Path | None = None, **settings: Any) -> mezo.TrainResult:
    values = dict(
        model=str(base), task="sst2", batch_size=4, num_steps=12, learning_rate=1e-4, epsilon=1e-3, seed=2
    )
    config = MeZOConfig.build(**{**values, **settings})
    return MeZOTrainer(config, train=MeZODataset(ROWS, task="sst2"), output=output).train()


CASES = [(name, "alone") for name in sorted(ESTIMATORS)]
CASES += [("two-point", "blocks"), ("one-point", "each"), ("fzoo", "each"), ("one-sided", "scaled")]
CASES += [("cone", "scaled"), ("cone", "each"), ("cone", "adapter")]


@pytest.mark.parametrize(("name", "around"), mostly_slow(CASES, lambda name, around: name == "two-point"))
def test_a_run_replays_to_the_same_bytes(base: Path, tmp_path: Path, name: str, around: str) -> None:
    result = run(
        base, tmp_path / "run", estimator=name, num_directions=2, final_directions=4, **AROUND[around]
    )
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / written.name)
    assert result.trajectory is not None
    layers = len({"embed", "0", "1", "norm", "head"}) if around == "each" else 1
    width = 4 + (name == "cone")  # which records its drift
    assert trajectory.read(result.trajectory).records.shape == (12, width * layers)
    assert [len(step.projected_grads) for step in result.steps][::11] == [2 * layers, 4 * layers]
    if name not in ("sign", "fzoo"):  # whose slopes say nothing of their scale
        assert len({abs(g) for step in result.steps for g in step.projected_grads}) > 12


def test_microbatches_at_the_same_z_are_one_batch(base: Path) -> None:
    """gradient_accumulation: losses of 2 x 4 examples are those of 8, to rounding.

    Losses of order 1 are means of float32 log-probabilities that agree to about 1e-6; a slope divides
    their difference by 2e-3, and 12 steps of 1e-4 times that leave theta where it was to 1e-6.
    """
    whole = run(base, batch_size=8, num_directions=2)
    parts = run(base, batch_size=4, gradient_accumulation=2, num_directions=2)
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=1e-5)
    found, expected = (np.array([s.projected_grads for s in r.steps]) for r in (parts, whole))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 / 2e-3)
    assert np.abs(expected).max() > 0.1, "the slopes are far larger than what they may differ by"


# ---------------------------------------------------------------- mezo.MeZO


def problem() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    x = torch.randn(16, 4)
    y = x[:, :1] - x[:, 1:2]
    return model, lambda: nn.functional.mse_loss(model(x), y)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_an_optimizer_with_every_estimator(name: str) -> None:
    model, loss = problem()
    lr = {"sign": 0.02, "fzoo": 0.02, "es": 0.02, "one-point": 1e-3}.get(name, 0.01)
    opt = mezo.MeZO(model, lr=lr, eps=1e-2, estimator=name, num_directions=4)
    before = loss().item()
    for _ in range(200):
        opt.step(loss)
    assert loss().item() < 0.7 * before


AROUND_OPT: dict[str, dict[str, Any]] = {
    "alone": {},
    "blocks": {"blocks": "random", "layers_per_step": 1, "clip_quantile": 0.5},
    "each": {"blocks": "each", "normalize": True},
    "scaled": {"layer_scaling": "variance", "clip_projected_grad": 1.0},
}


REFUSED = {("cone", "each")}  # which is normalized too
PAIRS = [(name, around) for name in sorted(ESTIMATORS) for around in AROUND_OPT]


@pytest.mark.parametrize(("name", "around"), [pair for pair in PAIRS if pair not in REFUSED])
def test_the_state_goes_on_where_it_was(name: str, around: str) -> None:
    """20 steps are 12 steps, a saved state, another optimizer, and 8 steps."""

    def made(model: nn.Module) -> mezo.MeZO:
        return mezo.MeZO(model, lr=1e-3, eps=1e-2, estimator=name, num_directions=2, **AROUND_OPT[around])

    model, loss = problem()
    opt = made(model)
    for _ in range(20):
        opt.step(loss)
    again, loss = problem()
    opt = made(again)
    for _ in range(12):
        opt.step(loss)
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    resumed = made(again)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(8):
        resumed.step(loss)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_state_of_another_estimator_is_refused() -> None:
    model, _ = problem()
    with pytest.raises(mezo.MezoError, match="one of estimator 'one-point', found 'two-point'"):
        mezo.MeZO(model).load_state_dict(mezo.MeZO(model, estimator="one-point").state_dict())


def test_epsilon_may_change_between_steps() -> None:
    model, loss = problem()
    opt = mezo.MeZO(model, lr=0.0, eps=1e-2, blocks="each", normalize=True)
    opt.param_groups[0]["eps"] = 1e-3
    opt.step(loss)
    assert opt.estimator.epsilon == 1e-3


def test_layers_that_do_not_move_in_the_first_step_are_watched_all_the_same() -> None:
    """The probes of one-sided begin at theta, and those of a block leave most tensors alone: neither
    makes a tensor look as if it were read outside its module."""
    model, loss = problem()
    opt = mezo.MeZO(model, lr=1e-3, estimator="one-sided", blocks="round-robin")
    opt.step(loss)
    assert opt.engine._probing is not None
    assert opt.engine._probing._whole == set()
    assert opt.last_update is not None
    (direction,) = opt.last_update.directions
    assert isinstance(direction, Direction)
    assert direction.scaling is not None
    assert direction.scaling.factors == (1.0, 1.0, 0.0, 0.0)
