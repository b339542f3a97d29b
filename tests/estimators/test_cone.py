"""The cone: against the method written out, and what it has in common with two-point."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.problems import PROBLEMS, QUADRATIC, Toy, config_for, descend, replayed

import mezo
from mezo import noise
from mezo.algorithm import draw_of, update_of
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.estimators import build
from mezo.estimators.cone import Cone
from mezo.noise.where import Where
from mezo.types import Draw
from mezo.weights.weights import Weights


def cone(weights: Weights | None = None, **settings: Any) -> Any:
    values = dict(estimator="cone", num_directions=2, epsilon=0.5)
    return build(
        MeZOConfig.build(**{**values, **settings}), weights or Weights([("layers.0.w", torch.ones(4))])
    )


def with_heading(*m: float) -> Weights:
    weights = Weights([("layers.0.w", torch.ones(len(m)))])
    weights.heading.of(0).copy_(torch.tensor([m]))
    weights.heading.changed()
    return weights


def z_of(weights: Weights, seed: int) -> np.ndarray:
    parts = [torch.empty(1, t.tensor.numel()) for t in weights.tunables]
    for z, t in zip(parts, weights.tunables, strict=True):
        noise.fill_(z, Where(t.tensor_id), seed)
    return torch.cat(parts, 1)[0].double().numpy()


def flat(weights: Weights) -> np.ndarray:
    return torch.cat([t.flat() for t in weights.tunables], 1)[0].double().numpy()


def written_out(config: MeZOConfig) -> np.ndarray:
    """theta after the method as its paper has it, in float64, on the quadratic problem."""
    weights = Weights(QUADRATIC.start().items())
    shapes = [(t.name, t.tensor.shape, t.tensor.numel()) for t in weights.tunables]
    theta, m = flat(weights), np.zeros(weights.num_elements)

    def loss(point: np.ndarray) -> float:
        parts = torch.from_numpy(point).split([count for *_, count in shapes])
        return float(QUADRATIC.loss({n: p.view(s) for (n, s, _), p in zip(shapes, parts, strict=True)}))

    d, angle, epsilon = len(theta), config.cone_angle, config.epsilon
    for step in range(config.num_steps):
        estimate = np.zeros(d)
        for seed in draw_of(config.seed, step, config.num_directions).seeds:
            z = z_of(weights, seed)
            if step:
                z = math.sqrt(d) * math.cos(angle) * m / np.linalg.norm(m) + math.sin(angle) * z
            slope = (loss(theta + epsilon * z) - loss(theta - epsilon * z)) / (2 * epsilon)
            estimate += slope * z / config.num_directions
        theta = theta - config.peak_rate * estimate
        m = config.cone_beta * m + (1 - config.cone_beta) * estimate
    return theta


@pytest.mark.parametrize("angle", [0.3, 1.0, 1.35])
def test_it_is_the_method_written_out(angle: float) -> None:
    """Both add the same numbers in other orders and, here, in float32: after 60 steps that differ by
    1e-7 each and move theta, of order 1, by some 0.1, a few parts in 1e6 are left; slopes divide what the
    loss, of order 30, loses in a probe's rounding (1e-6) by 2 epsilon = 0.04."""
    config = config_for(estimator="cone", cone_angle=angle, cone_beta=0.9, cone_warmup=0, num_steps=60)
    run = descend(config, QUADRATIC)
    expected = written_out(config)
    start = flat(Weights(QUADRATIC.start().items()))
    assert np.abs(expected - start).max() > 0.3, "theta did move"
    np.testing.assert_allclose(flat(run.weights), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_first_step_is_two_points(problem: str) -> None:
    one = [descend(config_for(estimator=e, num_steps=1), PROBLEMS[problem]) for e in ("cone", "two-point")]
    assert one[0].weights.checksum() == one[1].weights.checksum()
    two = [descend(config_for(estimator=e, num_steps=2), PROBLEMS[problem]) for e in ("cone", "two-point")]
    assert two[0].weights.checksum() != two[1].weights.checksum()


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_right_angle_is_two_point(problem: str) -> None:
    right, plain = (
        descend(config_for(num_steps=30, **settings), PROBLEMS[problem])
        for settings in (dict(estimator="cone", cone_angle=math.pi / 2), dict(estimator="two-point"))
    )
    assert right.weights.checksum() == plain.weights.checksum()
    for record, slopes in zip(right.records, plain.records, strict=True):
        assert np.array_equal(record, [*slopes, 0.0])


@pytest.mark.parametrize("problem", PROBLEMS)
def test_with_all_that_goes_around_it(problem: str) -> None:
    config = config_for(
        estimator="cone",
        blocks="random",
        layers_per_step=2,
        noise="rademacher",
        layer_scaling="variance",
        clip_projected_grad=4.0,
        clip_quantile=0.9,
        final_directions=11,
        weight_decay=0.01,
        cone_warmup=100,
    )
    run = descend(config, PROBLEMS[problem])
    assert run.last < 0.9 * run.first
    assert replayed(run).checksum() == run.weights.checksum()


def test_m_is_the_running_mean_of_the_estimates() -> None:
    """theta of plain SGD moves by lr times the estimate, so m can be had from theta's own path.

    theta, of order 1, is rounded to 6e-8, and lr = 0.01 divides that: 6e-6 of each estimate."""
    config = config_for(estimator="cone", cone_beta=0.9, cone_warmup=0, num_steps=1)
    engine = Toy(QUADRATIC, config)
    m, estimator, rate = 0.0, build(config, engine.weights), config.peak_rate
    for step in range(10):
        draw, before = draw_of(0, step, 2), flat(engine.weights)
        losses = [engine.at(probe) for probe in estimator.ask(draw)]
        engine.apply(update_of(estimator, draw, rate, estimator.tell(draw, losses)[0]))
        m = 0.9 * m + 0.1 * (before - flat(engine.weights)) / rate
    found = engine.weights.heading
    np.testing.assert_allclose(
        np.concatenate([found.of(n)[0] for n in range(len(engine.weights.tunables))]), m, rtol=0, atol=2e-5
    )
    assert found.norm() == pytest.approx(float(np.linalg.norm(m)), rel=1e-5)


def test_a_step_by_hand() -> None:
    """||m|| = 5 and d = 4: z = 2 cos m / 5 + sin u, that is sin (u + drift m) with drift = 2 / (5 tan)."""
    angle = 1.0
    estimator, draw = cone(with_heading(3.0, 0.0, 4.0, 0.0), cone_angle=angle), Draw(7, (1, 2))
    drift = float(np.float32(2 / (5 * math.tan(angle))))
    probes = estimator.ask(draw)
    assert {p.drift for p in probes} == {drift}
    assert [p.scale for p in probes] == pytest.approx([s * 0.5 * math.sin(angle) for s in (1, -1, 1, -1)])
    values, _ = estimator.tell(draw, [3.0, 1.0, 1.0, 2.0])
    assert values == (*(float(np.float32(g * math.sin(angle))) for g in (2.0, -1.0)), drift)
    first, second = estimator.directions(draw, values)
    assert (first.projected_grad, first.drift, second.projected_grad) == (values[0], drift, values[1])


def test_nothing_to_go_by_is_two_point() -> None:
    for weights in (with_heading(0.0, 0.0), with_heading(1e-45, 0.0)):
        probes = cone(weights).ask(Draw(3, (5, 6)))
        assert [(p.seed, p.scale, p.drift) for p in probes] == [
            (seed, scale, 0.0) for seed in (5, 6) for scale in (0.5, -0.5)
        ]


def test_clipping_spares_the_drift() -> None:
    estimator, draw = (
        cone(with_heading(3e-3, 4e-3), clip_projected_grad=0.25, clip_quantile=0.5),
        Draw(0, (1, 2)),
    )
    values, (_, past) = estimator.tell(draw, [3.0, 0.0, 0.0, 0.1], estimator.init())
    assert values[0] == 0.25
    assert -0.25 < values[1] < 0
    assert values[2] == estimator.ask(draw, None)[0].drift > 10
    assert len(past) == 2, "two slopes are remembered"


def test_the_warm_up_rises_from_the_last_estimate_to_a_long_mean() -> None:
    def beta(step: int, warmup: int = 2000, final: float = 0.99) -> float:
        return Cone(1e-3, 4, lambda: 1.0, beta=final, warmup=warmup).heading_beta(step)

    betas = [beta(step) for step in range(2500)]
    assert betas[:201] == [pytest.approx(0.1)] * 201
    assert all(a <= b for a, b in zip(betas, betas[1:], strict=False))
    # halfway between 200 and 2000: p = 0.5^1.8 = 0.2872, (1 + 8 p)^3 = 35.8
    assert beta(1100) == pytest.approx(0.99 - 0.89 / 35.8, rel=1e-3)
    assert betas[2000:] == [0.99] * 500
    assert [beta(step, warmup=0) for step in (0, 1)] == [0.99, 0.99]
    assert beta(0, final=0.05) == 0.05


def test_m_of_other_weights_is_refused() -> None:
    packed = with_heading(1.0, 2.0).heading.pack()
    weights = Weights([("layers.0.w", torch.ones(3))])
    with pytest.raises(MezoError, match=r"has 2 elements for layers.0.w, expected 3 elements"):
        weights.heading.unpack(packed)
    with pytest.raises(MezoError, match=r"has nothing for layers.0.w, expected 3"):
        weights.heading.unpack({})
    weights.heading.unpack(None)
    assert weights.heading.norm() == 0


def test_an_optimizer_that_rebuilds_its_moments_is_refused() -> None:
    with pytest.raises(
        MezoError, match="found optimizer='momentum-rebuilt': the mean gradient of past steps is not kept"
    ):
        mezo.MeZO(torch.nn.Linear(2, 2), estimator="cone", optimizer="momentum-rebuilt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"noise": "low-rank"},
            "estimator='cone' needs noise=gaussian or rademacher, found noise='low-rank'",
        ),
        (
            {"optimizer": "adam-rebuilt"},
            "needs optimizer other than momentum-rebuilt or adam-rebuilt, found optimizer='adam-rebuilt'",
        ),
        (
            {"normalize_perturbations": True},
            "needs normalize_perturbations=False, found normalize_perturbations=True",
        ),
        ({"cone_angle": 0.0}, "cone_angle=0.0: input should be greater than 0"),
        ({"cone_angle": 1.6}, "cone_angle=1.6: input should be less than or equal to 1.57"),
        ({"cone_beta": 1.0}, "cone_beta=1.0: input should be less than 1"),
    ],
)
def test_what_it_does_not_go_with(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MezoError, match=message):
        cone(**settings)
