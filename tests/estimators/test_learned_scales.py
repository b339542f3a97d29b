"""Scales of blocks, learned from the slopes and curvatures of the first steps."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from tests.problems import PROBLEMS, Problem, config_for, descend, replayed

import mezo
from mezo import estimators
from mezo.combinations import check_combination
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.estimators.learned_scales import EACH, LEVELS, LearnedScales, ScaleSums, kinds_of
from mezo.estimators.two_point import TwoPoint
from mezo.types import THETA, Draw, Scaling
from mezo.weights.weights import Weights

A, B = Scaling("a", (1.0, 0.0)), Scaling("b", (0.0, 1.0))
TWO = LearnedScales(TwoPoint(0.5), (A, B))


def learned(estimator: LearnedScales, found: dict[str, tuple[float, float]]) -> ScaleSums:
    """The state after all measurements: of each block its slope and its curvature."""
    state = estimator.init()
    for step in range(EACH * len(estimator.blocks)):
        draw = Draw(step, (step,))
        plus, minus, here = estimator.ask(draw, state)
        block = estimator.blocks[step % len(estimator.blocks)]
        assert plus.scaling is minus.scaling is block
        assert here == THETA
        slope, bend = found[block.name]
        losses = [s * plus.scale * slope + bend * plus.scale**2 / 2 for s in (1, -1)]
        values, state = estimator.tell(draw, [1 + losses[0], 1 + losses[1], 1.0], state)
        (direction,) = estimator.directions(draw, values)
        assert direction.scaling is block
        assert direction.projected_grad == pytest.approx(slope)
    return ScaleSums(*state)


def test_a_block_is_scaled_by_its_own_best_rate() -> None:
    """Slopes^2 4 and 1, curvatures 2 and 8: best rates 2 and 1/8 of each, 5/10 of both; squared scales 4 and 1/4."""
    state = learned(TWO, {"a": (2.0, 2.0), "b": (1.0, 8.0)})
    probes = TWO.ask(Draw(99, (7,)), state)
    assert [(p.scale, p.scaling and p.scaling.factors) for p in probes] == [
        (0.5, (2.0, 0.5)),
        (-0.5, (2.0, 0.5)),
    ]
    values, after = TWO.tell(Draw(99, (7,)), [1.5, 0.5], state)
    assert after == state
    assert len(values) == TWO.width(1) == 2
    assert TWO.are_slopes(1) == (True, False)
    assert all(value == float(np.float32(value)) for value in values)
    (direction,) = TWO.directions(Draw(99, (7,)), values)
    assert (direction.projected_grad, direction.scaling) == (1.0, probes[0].scaling)
    # sum v g^2 / sum v c: 16.25 / 10, of 5 / 10 without scales
    assert "3.25 times" in str(TWO.report(state))
    assert "a 80.0% of the squared slopes, 20.0% of the curvature, scale 2" in str(TWO.report(state))


def test_scales_have_bounds_and_a_block_that_does_nothing_keeps_its_own() -> None:
    blocks = tuple(Scaling(n, tuple(float(n == m) for m in "abcdefgh")) for n in "abcdefgh")
    estimator = LearnedScales(TwoPoint(0.5), blocks)
    found = dict.fromkeys("cdefgh", (1.0, 1.0))
    state = learned(estimator, {**found, "a": (1e3, 1e-3), "b": (0.0, 0.0)})
    assert max(state.levels) == LEVELS - 1
    assert state.levels[1] == LEVELS // 2
    assert estimator.width(3) == 5  # eight levels are two numbers
    values, _ = estimator.tell(Draw(99, (7,)), [1.5, 0.5], state)
    (direction,) = estimator.directions(Draw(99, (7,)), values)
    (probe, _) = estimator.ask(Draw(99, (7,)), state)
    assert direction.scaling is probe.scaling
    assert direction.scaling is not None
    assert direction.scaling.factors[:2] == (2.0**3.5, 1.0)


def test_a_loss_that_is_not_finite_teaches_nothing() -> None:
    draw = Draw(0, (7,))
    _, state = TWO.tell(draw, [float("nan"), 0.5, 1.0], TWO.init())
    assert state == (None, 1, (0.0, 0.0), (0.0, 0.0), ())


@pytest.mark.parametrize("said", [-3.0, -0.5, 0.5, 2.0**24])
def test_a_record_that_holds_no_levels_is_refused(said: float) -> None:
    with pytest.raises(MezoError, match="expected a record with the levels of 2 blocks"):
        TWO.directions(Draw(0, (7,)), (1.0, said))


def test_blocks_are_kinds_of_weights() -> None:
    shapes = {
        "model.embed.weight": (4, 3),
        "model.layers.0.q.weight": (3, 3),
        "model.layers.0.q.bias": (3,),
        "model.layers.1.q.weight": (3, 3),
        "model.norm.weight": (3,),
    }
    found = kinds_of(Weights((name, torch.ones(shape)) for name, shape in shapes.items()))
    assert {s.name: s.factors for s in found} == {
        "model.embed": (1, 0, 0, 0, 0),
        "model.layers.q": (0, 1, 0, 1, 0),
        "vectors": (0, 0, 1, 0, 1),
    }


def _slanted(w: dict[str, torch.Tensor]) -> torch.Tensor:
    """Two parts of which one bends a thousand times as much as the other, and earns nothing."""
    return (w["layers.0.low.weight"] - 3).square().sum() / 2 + 500 * w["layers.0.high.weight"].square().sum()


SLANTED = Problem(
    "slanted",
    lambda: {"layers.0.low.weight": torch.zeros(5, 4), "layers.0.high.weight": torch.full((5, 4), 1e-3)},
    _slanted,
)


def test_a_run_with_them_is_ahead_where_one_block_earns_nothing() -> None:
    settings: dict[str, Any] = dict(num_steps=400, learning_rate=2e-5, epsilon=1e-3, num_directions=1)
    plain, scaled = (
        descend(config_for(**settings, layer_scaling=kind), SLANTED) for kind in ("none", "learned")
    )
    assert scaled.first - scaled.last > 3 * (plain.first - plain.last)
    assert replayed(scaled).checksum() == scaled.weights.checksum()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(
    "around",
    [{}, {"noise": "rank-one"}, {"optimizer": "momentum"}, {"clip_quantile": 0.8}, {"final_directions": 4}],
    ids=str,
)
def test_it_descends_and_replays(problem: str, around: dict[str, Any]) -> None:
    config = config_for(layer_scaling="learned", **around)
    run = descend(config, PROBLEMS[problem])
    assert run.last < 0.9 * run.first
    assert replayed(run).checksum() == run.weights.checksum()
    assert estimators.build(config, run.weights).report(None) is not None


@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": "one-sided"},
        {"blocks": "each"},
        {"row_directions": 2},
        {"normalize_perturbations": True},
        {"learning_rate": "auto"},
    ],
    ids=str,
)
def test_what_it_does_not_go_with_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(MezoError, match="needs"):
        check_combination(MeZOConfig.build(layer_scaling="learned", **settings))


def test_a_state_goes_on_where_it_was() -> None:
    """Broken off among the steps that measure, and after them."""

    def run(breaks: tuple[int, ...]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model, x = (
            torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)),
            torch.randn(16, 4),
        )
        settings: dict[str, Any] = dict(lr=1e-2, eps=1e-2, layer_scaling="learned")
        opt = mezo.MeZO(model, **settings)
        for step in range(40):
            if step in breaks:
                file = io.BytesIO()
                torch.save(opt.state_dict(), file)
                file.seek(0)
                opt = mezo.MeZO(model, **settings)
                opt.load_state_dict(torch.load(file, weights_only=True))
            opt.step(lambda: (model(x) - x[:, :1]).square().mean())
        return [p.detach().clone() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(run(()), run((11, 33)), strict=True))
