"""Estimators against their own definitions, on losses made up for the purpose."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from mezo import noise
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.estimators import ESTIMATORS, Estimator, Normalized, build, norms_of
from mezo.estimators.base import losses_of
from mezo.estimators.fzoo import FZOO
from mezo.estimators.one_point import OnePoint
from mezo.estimators.one_sided import OneSided
from mezo.estimators.sign import Sign
from mezo.estimators.two_point import TwoPoint
from mezo.noise.where import Where
from mezo.types import THETA, Draw, Probe, Scaling
from mezo.weights.weights import Weights

DRAW = Draw(0, (3, 4))


def layered() -> Weights:
    """Four layers, two tensors in one of them."""
    names = ("embed.weight", "layers.0.weight", "layers.1.weight", "layers.1.bias", "head.weight")
    return Weights([(name, torch.full((4,), float(n + 1))) for n, name in enumerate(names)])


def built(weights: Weights | None = None, **settings: Any) -> Estimator:
    return build(MeZOConfig.build(**{"num_directions": 2, **settings}), weights or layered())


def linear(weights: Weights, seed: int, scale: float, scaling: Scaling | None) -> float:
    """c . (scale * scaling * z(seed)) with c = 1, 2, 3, ... over all elements."""
    total, start = 0.0, 1
    for n, t in enumerate(weights.tunables):
        z = torch.empty(1, t.tensor.numel())
        noise.fill_(z, Where(t.tensor_id), seed)
        c = torch.arange(start, start + z.numel(), dtype=torch.float64)
        total += scale * (scaling.factors[n] if scaling else 1.0) * float(c @ z[0].double())
        start += z.numel()
    return total


def test_two_point() -> None:
    estimator = TwoPoint(epsilon=0.5)
    assert [(p.seed, p.scale) for p in estimator.ask(DRAW)] == [(3, 0.5), (3, -0.5), (4, 0.5), (4, -0.5)]
    found, _ = estimator.tell(DRAW, [2.0, 1.0, 0.25, 0.5])
    assert [(d.seed, d.projected_grad) for d in estimator.directions(DRAW, found)] == [(3, 1.0), (4, -0.25)]


def test_one_sided() -> None:
    estimator = OneSided(epsilon=0.5)
    assert estimator.ask(DRAW) == (THETA, Probe(3, 0.5), Probe(4, 0.5))
    assert estimator.tell(DRAW, [1.0, 2.0, 0.75])[0] == (2.0, -0.5)


def test_one_point_subtracts_the_step_before() -> None:
    estimator = OnePoint(epsilon=0.5)
    assert estimator.ask(DRAW) == (Probe(3, 0.5), Probe(4, 0.5))
    first, state = estimator.tell(DRAW, [2.0, 4.0], estimator.init())
    assert first == (0.0, 0.0), "there is nothing to compare with yet"
    second, state = estimator.tell(DRAW, [2.0, 5.0], state)
    assert second == (-2.0, 4.0)
    assert estimator.tell(DRAW, [3.5, 4.5], state)[0] == (0.0, 2.0)


def test_sign() -> None:
    estimator = Sign(epsilon=0.5)
    draw = Draw(0, (1, 2, 3))
    assert estimator.tell(draw, [2.0, 1.0, 1.0, 7.0, 4.0, 4.0])[0] == (1.0, -1.0, 0.0)


def test_fzoo_divides_by_the_spread() -> None:
    estimator = FZOO(epsilon=0.5)
    draw = Draw(0, (1, 2, 3))
    assert estimator.ask(draw) == (THETA, *(Probe(seed, 0.5) for seed in draw.seeds))
    # losses 1, 2, 3: their sample standard deviation is 1
    assert estimator.tell(draw, [0.5, 1.0, 2.0, 3.0])[0] == (0.5, 1.5, 2.5)
    assert estimator.tell(draw, [0.5, 2.0, 2.0, 2.0])[0] == (0.0, 0.0, 0.0), "losses without a spread"


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_slopes_are_what_a_trajectory_can_hold(name: str) -> None:
    estimator = built(estimator=name, epsilon=1e-3)
    state = estimator.init()
    for found in ([0.1, 0.3, 0.7, 0.2, 0.6], [0.4, 0.9, 0.3, 0.1, 0.5]):
        rest = iter(found)
        losses = losses_of(estimator, DRAW, state, lambda probes, rest=rest: [next(rest) for _ in probes])
        values, state = estimator.tell(DRAW, losses, state)
        assert len(values) == estimator.width(2) == 2 + (name == "cone")  # which records its drift
        assert all(value == float(np.float32(value)) for value in values)


@pytest.mark.parametrize("settings", [{}, {"clip_projected_grad": 1.0}, {"blocks": "each"}], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_a_loss_that_is_not_finite_is_not_hidden(name: str, bad: float, settings: dict[str, Any]) -> None:
    """The step fails on the loss itself; but nothing here may raise first."""
    estimator = built(estimator=name, **settings)
    state = estimator.init()
    for _ in range(2):
        losses = losses_of(estimator, DRAW, state, lambda probes: [1.0] * len(probes))
        values, state = estimator.tell(DRAW, [*losses[:-1], bad], state)
    assert len(values) == estimator.width(2)


def test_a_slope_too_large_for_float32_is_infinite_not_an_exception() -> None:
    assert TwoPoint(epsilon=1e-30).tell(Draw(0, (1,)), [1e20, 0.0])[0] == (math.inf,)


def test_normalized_walks_along_unit_vectors() -> None:
    """On a linear loss c.theta the slope along z/||z|| is c.z/||z||, and the step lr times that."""
    d = 500
    weights = Weights([("w", torch.zeros(d))])
    estimator = Normalized(TwoPoint(epsilon=0.1), weights.norm)
    c = torch.linspace(-1, 1, d, dtype=torch.float64)
    z = torch.empty(1, d)
    noise.fill_(z, Where(noise.tensor_id("w")), 11)
    z = z[0].double()
    draw = Draw(0, (11,))
    probes = estimator.ask(draw)
    points = [p.scale * z for p in probes]
    # ||z|| comes from z rounded to 1/4096: relative error below 1e-5
    torch.testing.assert_close(points[0], 0.1 * z / z.norm(), rtol=1e-5, atol=0)
    (found,), _ = estimator.tell(draw, [float(c @ p) for p in points])
    assert found * float(z.norm()) == pytest.approx(float(c @ z / z.norm()), rel=1e-4)


def moved(estimator: Estimator, step: int, seeds: tuple[int, ...] = (3, 4)) -> set[int]:
    """The numbers of the layers of `layered` that a step's probes move; its directions move the same."""
    draw = Draw(step, seeds)
    numbers = [[0], [1], [2, 3], [4]]

    def layers(scaling: Any) -> set[int]:
        factors = scaling.factors
        return {n for n, places in enumerate(numbers) if all(factors[place] == 1 for place in places)}

    (probes,) = {p.scaling for p in estimator.ask(draw) if p.scale}
    (directions,) = {d.scaling for d in estimator.directions(draw, [1.0] * len(seeds))}
    assert probes is not None
    assert layers(probes) == layers(directions)
    assert sum(probes.factors) == sum(len(numbers[n]) for n in layers(probes))
    return layers(probes)


def test_round_robin_takes_layers_in_turn() -> None:
    one, three = built(blocks="round-robin"), built(blocks="round-robin", layers_per_step=3)
    assert [moved(one, step) for step in range(5)] == [{0}, {1}, {2}, {3}, {0}]
    assert [moved(three, step) for step in range(3)] == [{0, 1, 2}, {3, 0, 1}, {2, 3, 0}]


def test_random_blocks_are_a_function_of_the_seeds() -> None:
    drawn = [moved(built(blocks="random", layers_per_step=2), 0, (seed, 1)) for seed in range(600)]
    assert drawn == [moved(built(blocks="random", layers_per_step=2), 0, (seed, 7)) for seed in range(600)]
    counts = {frozenset(s): drawn.count(s) for s in drawn}
    assert len(counts) == 6
    # 600 draws of 6 pairs: 100 each, of standard deviation sqrt(600 * 1/6 * 5/6) = 9; 5 of these
    assert all(abs(count - 100) < 45 for count in counts.values())


def test_each_layer_has_its_own_slope_and_shares_the_probe_at_theta() -> None:
    estimator = built(estimator="one-sided", epsilon=0.5, blocks="each")
    probes = estimator.ask(DRAW)
    assert len(probes) == 1 + 4 * 2
    assert probes[0] == THETA
    values, _ = estimator.tell(DRAW, [1.0, *(1.0 + k for k in range(8))])
    assert values == tuple(2.0 * k for k in range(8))
    directions = estimator.directions(DRAW, values)
    assert [d.seed for d in directions] == [3, 4] * 4
    assert [d.scaling for d in directions] == [p.scaling for p in probes[1:]]


def test_each_layer_remembers_its_own_losses() -> None:
    estimator = built(estimator="one-point", epsilon=0.5, blocks="each")
    _, state = estimator.tell(DRAW, [float(k) for k in range(8)], estimator.init())
    assert state == (0.5, 2.5, 4.5, 6.5)
    assert estimator.tell(DRAW, [0.5, 0.5, 2.5, 3.0, 4.5, 4.5, 6.5, 6.5], state)[0][:4] == (0, 0, 0, 1)


def test_layer_scaling_is_by_norms() -> None:
    """Tensors of four equal numbers 1 to 5 have the norms 2, 4, 6, 8, 10; their geometric mean is 5.21."""
    middle = math.prod((2, 4, 6, 8, 10)) ** (1 / 5)
    d = norms_of(layered())
    assert d == pytest.approx([norm / middle for norm in (2, 4, 6, 8, 10)], rel=5e-3)
    assert all(value == float(f"{value:.3g}") for value in d)
    for kind, update in (("variance", d), ("expectation", None)):
        estimator = built(layer_scaling=kind)
        (probe,) = {p.scaling for p in estimator.ask(DRAW)}
        (direction,) = {d.scaling for d in estimator.directions(DRAW, (1.0, 2.0))}
        assert probe is not None
        assert probe.factors == tuple(1 / value for value in d)
        assert (direction.factors if direction else None) == update


def test_tensors_of_zeros_are_scaled_by_one() -> None:
    weights = Weights([("a", torch.zeros(3)), ("b", torch.full((4,), 2.0)), ("c", torch.full((4,), 8.0))])
    assert norms_of(weights) == (1.0, 0.5, 2.0)
    assert norms_of(Weights([("a", torch.zeros(3))])) == (1.0,)


def test_absolute_clipping() -> None:
    estimator = built(epsilon=0.5, clip_projected_grad=1.5)
    values, state = estimator.tell(DRAW, [2.0, 0.0, 1.0, 2.0], estimator.init())
    assert values == (1.5, -1.0)
    assert estimator.tell(DRAW, [0.0, 9.0, 1.0, 1.0], state)[0] == (-1.5, 0.0)


def test_clipping_by_quantile() -> None:
    """Slopes 1, 2, ..., 10 are only watched; then the bound is the 0.8-quantile, and it follows what comes."""
    estimator, draw = built(epsilon=0.5, clip_quantile=0.8), Draw(0, (1,))
    state = estimator.init()
    for slope in range(1, 11):
        (value,), state = estimator.tell(draw, [float(slope), 0.0], state)
        assert value == slope
    assert estimator.tell(draw, [100.0, 0.0], state)[0] == (8.0,)
    assert estimator.tell(draw, [0.0, 100.0], state)[0] == (-8.0,)
    assert estimator.tell(draw, [7.0, 0.0], state)[0] == (7.0,)
    for _ in range(100):  # a window of 100: then 50 is what slopes are like here
        _, state = estimator.tell(draw, [50.0, 0.0], state)
    assert estimator.tell(draw, [60.0, 0.0], state)[0] == (50.0,)
    assert len(state[1]) == 100


def test_both_bounds() -> None:
    estimator, draw = built(epsilon=0.5, clip_quantile=0.5, clip_projected_grad=3.0), Draw(0, (1,))
    state = estimator.init()
    for _ in range(10):
        _, state = estimator.tell(draw, [2.0, 0.0], state)
    assert estimator.tell(draw, [9.0, 0.0], state)[0] == (2.0,)
    assert estimator.tell(draw, [9.0, 0.0], estimator.init())[0] == (3.0,)


def test_epsilon_can_be_changed_through_everything_around() -> None:
    estimator = built(
        epsilon=0.5,
        blocks="random",
        layer_scaling="variance",
        normalize_perturbations=True,
        clip_quantile=0.5,
    )
    other = estimator.with_epsilon(0.25)
    assert (estimator.epsilon, other.epsilon) == (0.5, 0.25)
    pairs = zip(estimator.ask(DRAW), other.ask(DRAW), strict=True)
    assert all(a.scale == 2 * b.scale and a.scaling is b.scaling for a, b in pairs)


@pytest.mark.parametrize(
    ("settings", "slopes"),
    [
        ({}, True),
        ({"estimator": "one-sided", "blocks": "each", "clip_quantile": 0.5}, True),
        ({"estimator": "sign"}, False),
        ({"normalize_perturbations": True, "clip_projected_grad": 1.0}, False),
        ({"layer_scaling": "variance", "blocks": "random"}, False),
    ],
    ids=str,
)
def test_what_is_a_slope_is_known(settings: dict[str, Any], slopes: bool) -> None:
    """On the loss c.theta a value that is a slope is c.z of its direction, whatever is around it."""
    weights = layered()
    estimator = built(weights, epsilon=0.5, **settings)
    assert estimator.gives_slopes == slopes
    state = estimator.init()
    losses = [linear(weights, p.seed, p.scale, p.scaling) for p in estimator.ask(DRAW, state)]
    values, _ = estimator.tell(DRAW, losses, state)
    along = [linear(weights, d.seed, 1.0, d.scaling) for d in estimator.directions(DRAW, values)]
    assert np.allclose(values, along, rtol=1e-5) == slopes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "twopoint"}, "unknown estimator 'twopoint'; did you mean 'two-point'"),
        ({"estimator": "fzoo", "num_directions": 1}, "found num_directions=1; the method's own number is 8"),
        ({"estimator": "fzoo", "num_directions": 4, "final_directions": 1}, "found num_directions=1"),
        ({"blocks": "random", "layers_per_step": 5}, "layers_per_step=5: expected at most .* 4"),
        ({"blocks": "roundrobin"}, "blocks='roundrobin'"),
        ({"clip_quantile": 1.0}, "clip_quantile=1.0: input should be less than 1"),
        ({"clip_projected_grad": 0.0}, "clip_projected_grad=0.0: input should be greater than 0"),
        ({"layer_scaling": "norm"}, "layer_scaling='norm'"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MezoError, match=message):
        built(**settings)


def test_a_step_along_unit_vectors_measures_each_z_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each norm is a pass of noise over all weights."""
    weights = Weights([("w", torch.zeros(50))])
    measured: list[int] = []
    norm = Weights.norm

    def counted(self: Weights, seed: int, scaling: Scaling | None = None) -> float:
        measured.append(seed)
        return norm(self, seed, scaling)

    monkeypatch.setattr(Weights, "norm", counted)
    config = MeZOConfig.build(normalize_perturbations=True, num_directions=2)
    estimator, draw = build(config, weights), Draw(0, (3, 4))
    estimator.ask(draw, estimator.init())
    estimator.tell(draw, [1.0, 0.5, 0.2, 0.1], estimator.init())
    assert measured == [3, 4]
