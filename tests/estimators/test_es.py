"""A population's losses as weights: by hand, on small problems, and in runs on generated text."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.estimators.test_runs import base
from tests.tiny_models import same_files

import mezo
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.errors import MezoError
from mezo.estimators.es import EvolutionStrategies
from mezo.estimators.two_point import TwoPoint
from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.runs.metrics_file import read_metrics
from mezo.training.trainer import MeZOTrainer
from mezo.types import Draw

__all__ = ["base"]  # a fixture
DRAW = Draw(3, (7, 8, 9, 10))
LOSSES = [3.0, 1.0, -2.0, 0.5, 0.25, 4.0, 1.0, 1.0]


def told(losses: list[float] = LOSSES, **settings: Any) -> list[float]:
    draw = Draw(3, DRAW.seeds[: len(losses) // 2])
    return list(EvolutionStrategies(0.5, **settings).tell(draw, losses)[0])


def halves(weights: Any) -> np.ndarray:
    w = np.asarray(weights, dtype=np.float64)
    return ((w[0::2] - w[1::2]) / 2).astype(np.float32)


def test_z_scores_are_of_the_population() -> None:
    losses = np.array(LOSSES)
    np.testing.assert_array_equal(told(), halves((losses - losses.mean()) / losses.std()))


def test_z_scores_do_not_depend_on_the_losses_scale() -> None:
    moved = [2.0 * loss + 8.0 for loss in LOSSES]  # exact in binary
    np.testing.assert_allclose(told(moved), told(), rtol=1e-6)


def test_ranks_are_shared_by_equal_losses() -> None:
    places = [6, 4, 0, 2, 1, 7, 4, 4]  # of which 3, 4 and 5 are one
    np.testing.assert_array_equal(told(scores="rank"), halves([p / 7 - 0.5 for p in places]))


def test_a_group_is_judged_by_its_own_mean() -> None:
    """Two groups of two directions: an offset of a group, of harder prompts, changes nothing."""
    losses = np.array(LOSSES).reshape(2, 4)
    centred = losses - losses.mean(1, keepdims=True)
    expected = halves((centred / math.sqrt((centred**2).mean())).ravel())
    np.testing.assert_array_equal(told(scores="group", groups=2), expected)
    harder = [loss + 64.0 * (n >= 4) for n, loss in enumerate(LOSSES)]
    np.testing.assert_allclose(told(harder, scores="group", groups=2), expected, rtol=1e-5)
    assert not np.allclose(told(harder), told(), rtol=0.1), "as the population's mean would"


def test_without_scores_it_is_two_point() -> None:
    assert told(scores="none") == list(TwoPoint(0.5).tell(DRAW, LOSSES)[0])


def test_a_group_has_its_own_rows() -> None:
    asked = EvolutionStrategies(0.5, "group", 2).ask(DRAW)
    assert [(p.seed, p.scale, p.rows) for p in asked[2:6]] == [
        (8, 0.5, (0, 2)),
        (8, -0.5, (0, 2)),
        (9, 0.5, (1, 2)),
        (9, -0.5, (1, 2)),
    ]
    assert {p.rows for p in EvolutionStrategies(0.5).ask(DRAW)} == {None}


@pytest.mark.parametrize("scores", ["z-score", "rank", "group", "none"])
def test_equal_losses_move_nothing(scores: Any) -> None:
    """Also where their mean is not exactly theirs: 0.1 three times."""
    estimator = EvolutionStrategies(0.5, scores)
    values, _ = estimator.tell(Draw(0, (1, 2, 3)), [0.1] * 6)
    assert values == (0.0, 0.0, 0.0)
    assert estimator.learning_rate(0.5, values) == 0.0
    assert estimator.dead_groups([0.1] * 6) == 1.0
    assert estimator.learning_rate(0.5, (0.0, 1.0)) == 0.5


def test_dead_groups_are_counted() -> None:
    estimator = EvolutionStrategies(0.5, "group", 2)
    assert estimator.dead_groups([1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0]) == 0.5
    values, _ = estimator.tell(DRAW, [1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0])
    assert values[:2] == (0.0, 0.0)
    assert values[2] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 3, "scores": "group"}, "groups=3 does not divide num_directions=4"),
        ({"groups": 4, "scores": "group", "batch_size": 6}, "groups=4 does not divide batch_size=6"),
        ({"groups": 2}, "needs scores=group, found scores='z-score'"),
        (
            {"estimator": "two-point", "scores": "rank"},
            "scores=.rank. needs estimator=es, found estimator=.two-point.",
        ),
        ({"row_directions": 2, "num_directions": 1}, "needs estimator other than fzoo or cone or es"),
    ],
)
def test_what_makes_no_population(base: Path, settings: dict[str, Any], message: str) -> None:
    values = {"estimator": "es", "num_directions": 4, "batch_size": 4, **settings}
    with pytest.raises(MezoError, match=message):
        run(base, None, **values)


# ---------------------------------------------------------------- runs on text

PROMPTS = [
    {"prompt": f"say {word}", "completion": " a"} for word in ["one", "two", "three", "four", "five", "six"]
]


def letters(row: dict[str, Any], output: str) -> float:
    return sum(c in "aeiou" for c in output)


def constant(row: dict[str, Any], output: str) -> float:
    return 1.0


def run(base: Path, output: Path | None, **settings: Any) -> mezo.TrainResult:
    values: dict[str, Any] = dict(
        model=str(base),
        task="prompt-completion",
        objective=f"{__name__}:letters",
        estimator="es",
        num_directions=4,
        batch_size=4,
        num_steps=3,
        learning_rate=0.05,
        epsilon=0.05,
        max_new_tokens=6,
        stop=("eos",),
        weight_decay=0.1,
        snapshot_every=1,
    )
    config = MeZOConfig.build(**{**values, **settings})
    data = MeZODataset(PROMPTS, task="prompt-completion")
    return MeZOTrainer(config, train=data, output=output).train()


@pytest.mark.parametrize(
    "settings",
    [
        {"scores": "rank"},
        {"scores": "group", "groups": 2, "tuning": "lora"},
        {"noise": "rank-one", "temperature": 1.0, "samples": 2},
    ],
    ids=["rank", "group", "sampled"],
)
def test_a_run_on_text_replays_without_a_reward(
    base: Path, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(base, tmp_path / "run", **settings)
    assert any(any(step.projected_grads) for step in result.steps), "the rewards differ"
    monkeypatch.delattr(f"{__name__}.letters")
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / written.name)


def test_a_run_that_is_resumed_draws_what_it_would_have_drawn(base: Path, tmp_path: Path) -> None:
    settings = {"noise": "rank-one", "temperature": 1.0, "num_steps": 4}
    whole = run(base, tmp_path / "whole", **settings)
    run(base, tmp_path / "part", **{**settings, "num_steps": 2})
    config = MeZOConfig.load(tmp_path / "part" / "config.yaml", objective=f"{__name__}:letters")
    longer = config.model_copy(update={"num_steps": 4})
    data = MeZODataset(PROMPTS, task="prompt-completion")
    resumed = MeZOTrainer(longer, train=data, resume=tmp_path / "part").train()
    assert resumed.losses == whole.losses
    found, expected = (
        trajectory.read(tmp_path / name / "trajectory.mezo").records for name in ("part", "whole")
    )
    assert np.array_equal(found, expected)


def test_a_step_of_equal_rewards_leaves_theta_and_is_counted(base: Path, tmp_path: Path) -> None:
    """Weight decay included."""
    result = run(base, tmp_path / "run", objective=f"{__name__}:constant", optimizer="sgd")
    assert [step.dead_groups for step in result.steps] == [1.0] * 3
    assert [step.dead_groups for step in read_metrics(tmp_path / "run" / "metrics.jsonl").steps] == [1.0] * 3
    same = [{"mean": 1.0, "std": 0.0, "min": 1.0, "max": 1.0}] * 3
    assert [step.rewards for step in read_metrics(tmp_path / "run" / "metrics.jsonl").steps] == same
    assert result.metrics["zero_gradient_fraction"] == 1.0
    assert [step.learning_rate for step in result.steps] == [0.0] * 3
    found, expected = (load_file(f / "model.safetensors") for f in (tmp_path / "run" / "model", base))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
