"""A learning rate that the probes measure: right on quadratic losses, whatever their scale, and for whoever sets nothing."""

import dataclasses
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.resumed import base, config_for, trainer
from tests.tiny_models import same_files

from mezo.algorithm import draw_of, mezo_step
from mezo.baselines.finetune import finetune
from mezo.combinations import recommended
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.estimators.auto_rate import ASSUMED, DOUBT, FIRST, KEPT_SHARED, SIGNAL, AutoRate
from mezo.estimators.row_directions import RowDirections
from mezo.estimators.two_point import TwoPoint
from mezo.optimizers import SGD
from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.types import Probe, Update
from mezo.weights.weights import Weights

SIZE, ROWS = 400, 16


class Quadratic:
    """The loss of row i is scale * curvature * |theta - target - noise_i|^2 / 2."""

    def __init__(self, curvature: float = 1.0, noise: float = 0.0, scale: float = 1.0) -> None:
        self.theta = torch.zeros(SIZE)
        self.weights = Weights([("w", self.theta)])
        self.target = np.random.default_rng(0).standard_normal(SIZE)
        self.noise, self.curvature, self.scale, self.step = noise, curvature, scale, 0

    def losses_each(self, batches: Sequence[Any], probes: Sequence[Probe]) -> list[list[float]]:
        drawn = np.random.default_rng(self.step)
        rows = self.target + self.noise * drawn.standard_normal((ROWS, SIZE))
        return [[self._loss(rows, probe) for probe in probes] for _ in batches]

    def _loss(self, rows: np.ndarray, probe: Probe) -> float:
        k, parts = probe.rows or (0, 1)
        mine = rows[k * ROWS // parts : (k + 1) * ROWS // parts]
        at = torch.zeros(SIZE)
        self.weights.perturb(self.weights.tunables[0], probe.seed, probe.scale, at.view(1, -1))
        return float(self.scale * self.curvature * np.square(at.double().numpy() - mine).sum(1).mean() / 2)

    def apply(self, update: Update) -> None:
        SGD().apply_(self.weights, None, update)
        self.step += 1

    def run(self, estimator: AutoRate, steps: int, n: int = 1) -> list[float]:
        """The rates of the steps."""
        state, rates = estimator.init(), []
        for step in range(steps):
            update, _, state = mezo_step(self, estimator, [None], draw_of(0, step, n), 1.0, state)
            rates.append(update.learning_rate)
        return rates

    @property
    def distance(self) -> float:
        return float(np.square(self.theta.numpy() - self.target).sum())


@pytest.mark.parametrize("curvature", [1e-3, 1.0, 1e3])
def test_the_rate_is_one_over_the_trace_of_the_curvature(curvature: float) -> None:
    """Without noise all of g^2 is signal, once that is known: then 1 / tr(H) = 1 / (curvature SIZE).

    E[z^T H z g^2] / E[g^2] is tr(H) + 2 lambda here, 1 + 2 / 400 times the trace. The mean over some 20 measurements, of which
    each spreads by sqrt(2 / 400) = 7 %, adds 1.6 %; four times that and the half percent are 7 %.

    The doubt that is taken off is known: sum g^4 / (sum g^2)^2 is 3 / n for a Gaussian g and n like measurements, here
    n = (1 + KEPT_SHARED) / (1 - KEPT_SHARED). Its own spread is a fifth of it: 2 % more.
    """
    problem = Quadratic(curvature)
    began = problem.distance
    rates = problem.run(AutoRate(TwoPoint(1e-2)), 600)
    seen = (1 - KEPT_SHARED**600) / (1 - KEPT_SHARED)
    sure = 1 - DOUBT * sqrt(3 * (1 - KEPT_SHARED) / (1 + KEPT_SHARED))
    expected = (SIGNAL * ASSUMED + sure * seen) / (ASSUMED + seen) / (curvature * SIZE)
    assert rates[-1] == pytest.approx(expected, rel=0.09)
    assert rates[0] < rates[FIRST - 1] / 8
    assert problem.distance < 0.6 * began


def test_noise_of_the_batch_makes_the_steps_shorter() -> None:
    quiet, noisy = Quadratic(), Quadratic(noise=8.0)
    assert noisy.run(AutoRate(TwoPoint(1e-2)), 300)[-1] < 0.7 * quiet.run(AutoRate(TwoPoint(1e-2)), 300)[-1]


def test_a_loss_in_other_units_takes_the_same_steps() -> None:
    """A power of two changes no digit of a loss, a slope or a rate."""
    ones, others = Quadratic(noise=1.0), Quadratic(noise=1.0, scale=2.0**20)
    rates = ones.run(AutoRate(TwoPoint(1e-2)), 40), others.run(AutoRate(TwoPoint(1e-2)), 40)
    assert rates[0] == [rate * 2.0**20 for rate in rates[1]]
    assert torch.equal(ones.theta, others.theta)


def test_n_directions_take_n_times_the_rate() -> None:
    one, four = (Quadratic().run(AutoRate(TwoPoint(1e-2)), 200, n)[-1] for n in (1, 4))
    assert four == pytest.approx(4 * one, rel=0.14)  # twice the 7 % of one


def test_a_direction_for_each_part_takes_less_than_so_many_times_the_rate() -> None:
    """Slopes of a part have the noise of fewer rows."""
    by_part = AutoRate(RowDirections(TwoPoint(1e-2)))
    quiet, noisy = (Quadratic(noise=noise).run(by_part, 300, 8)[-1] for noise in (0.0, 8.0))
    one, noisy_one = (Quadratic(noise=noise).run(AutoRate(TwoPoint(1e-2)), 300)[-1] for noise in (0.0, 8.0))
    assert noisy / noisy_one < 0.8 * quiet / one


def test_a_loss_without_a_slope_moves_nothing() -> None:
    problem = Quadratic(scale=0.0)
    assert problem.run(AutoRate(TwoPoint(1e-2)), 3) == [0.0] * 3
    assert not problem.theta.any()


@pytest.mark.parametrize(
    "changes", [{}, {"batch_size": 3}, {"row_directions": 4, "noise": "rank-one"}], ids=str
)
def test_a_run_replays_to_its_bytes(tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = {"learning_rate": "auto", "batch_size": 4, "num_steps": 20, **changes}
    result = trainer(
        config_for(base(tmp_path / "base"), **settings), output=tmp_path / "run", artifacts=True
    ).train()
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / written.name)
    assert result.trajectory is not None
    rates = trajectory.read(result.trajectory).records[:, -1]
    assert (rates > 0).all()
    scheduled = [float(rate) * (1 - step / 20) for step, rate in enumerate(rates)]
    assert [s.learning_rate for s in result.steps] == pytest.approx(scheduled, rel=1e-12)


def test_who_chooses_no_rate_has_one_measured() -> None:
    assert recommended(MeZOConfig()).learning_rate == "auto"
    assert recommended(MeZOConfig()).schedule == "linear"
    assert recommended(MeZOConfig()).start == "auto"
    assert recommended(MeZOConfig(start="model")).start == "model"
    assert recommended(MeZOConfig()).epsilon == 1e-3
    assert recommended(MeZOConfig(dtype="bfloat16")).epsilon == 5e-3
    assert recommended(MeZOConfig(tuning="lora")).epsilon == 1e-2
    assert recommended(MeZOConfig(tuning="lora", epsilon=1e-3)).epsilon == 1e-3
    assert recommended(MeZOConfig(schedule="cosine")).schedule == "cosine"
    for chosen in (
        MeZOConfig(learning_rate=1e-6),
        MeZOConfig(estimator="sign"),
        MeZOConfig(optimizer="adam"),
    ):
        assert recommended(chosen) == chosen


@pytest.mark.parametrize(
    "changes", [{"estimator": "sign"}, {"optimizer": "adam"}, {"layer_scaling": "variance"}], ids=str
)
def test_what_it_does_not_go_with_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(MezoError, match="learning_rate='auto' needs"):
        trainer(config_for(base(tmp_path), learning_rate="auto", **changes))


@pytest.mark.parametrize(("examples", "size"), [(7, 6), (6, 16), (1, 1)])
def test_a_small_set_is_cut_into_halves(tmp_path: Path, examples: int, size: int) -> None:
    config = config_for(base(tmp_path), learning_rate="auto", batch_size=16, num_steps=2)
    made = trainer(config, rows=[{"sentence": f"g{n}", "label": n % 2} for n in range(examples)])
    assert made.config.batch_size == size
    assert made.train().steps[1].learning_rate > 0


def test_backpropagation_has_no_such_rate(tmp_path: Path) -> None:
    with pytest.raises(MezoError, match="learning_rate='auto' is of forward passes"):
        finetune(config_for(base(tmp_path), learning_rate="auto"))


def test_a_state_that_was_written_down_is_the_same() -> None:
    estimator, draw = AutoRate(TwoPoint(0.5), halves=False), draw_of(0, 0, 1)
    _, (inner, measured) = estimator.tell(draw, [1.5, 0.5, 0.75])
    later, losses = dataclasses.replace(draw, step=FIRST), [1.0, 0.0, 0.25]
    assert estimator.tell(later, losses, (inner, tuple(measured))) == estimator.tell(
        later, losses, (inner, measured)
    )
