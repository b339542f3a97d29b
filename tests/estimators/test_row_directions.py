"""A direction for each part of the batch: what is asked, what is told, what it estimates, in runs and out of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.estimators.test_runs import base, run
from tests.tiny_models import same_files

from mezo.algorithm import draw_of, mezo_step
from mezo.config import MeZOConfig
from mezo.engines.base import Engine, part_of
from mezo.errors import MezoError
from mezo.estimators import build
from mezo.estimators.base import Estimator, as_float32, losses_of
from mezo.estimators.exact_sums import ExactSums
from mezo.estimators.one_point import OnePoint
from mezo.estimators.one_sided import OneSided
from mezo.estimators.row_directions import RowDirections
from mezo.estimators.two_point import TwoPoint
from mezo.noise.exact_sums import LIMIT, rounded, whole
from mezo.optim import MeZO
from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.types import Direction, Draw, Probe, Scaling
from mezo.weights.weights import Weights

__all__ = ["base"]  # a fixture
DRAW = Draw(3, (7, 8, 9))


def test_each_part_is_probed_along_its_own_direction() -> None:
    estimator = RowDirections(OneSided(0.5))
    assert [(p.seed, p.scale, p.rows) for p in estimator.ask(DRAW)] == [
        (0, 0.0, (0, 3)),
        (7, 0.5, (0, 3)),
        (0, 0.0, (1, 3)),
        (8, 0.5, (1, 3)),
        (0, 0.0, (2, 3)),
        (9, 0.5, (2, 3)),
    ]
    values, state = estimator.tell(DRAW, [1.0, 1.5, 2.0, 1.0, 5.0, 5.0])
    assert values == (1.0, -2.0, 0.0)
    assert state is None
    assert estimator.directions(DRAW, values) == (Direction(7, 1.0), Direction(8, -2.0), Direction(9, 0.0))


def test_each_part_has_a_state_of_its_own() -> None:
    estimator = RowDirections(OnePoint(0.5))
    _, state = estimator.tell(DRAW, [1.0, 2.0, 3.0])
    assert state == (1.0, 2.0, 3.0)
    assert estimator.tell(DRAW, [2.0, 2.0, 2.5], state)[0] == (2.0, 0.0, -1.0)


class Curious(TwoPoint):
    """Asks again, once, twice as far, where the first slope was above 0."""

    def ask_again(self, draw: Draw, losses: Any, state: Any = None) -> tuple[Probe, ...]:
        return (Probe(draw.seeds[0], 1.0),) if len(losses) == 2 and losses[0] > losses[1] else ()

    def tell(self, draw: Draw, losses: Any, state: Any = None) -> tuple[tuple[float, ...], Any]:
        return (as_float32(sum(losses)),), state


def test_parts_ask_again_by_what_they_found() -> None:
    at = {
        (7, 0.5): 2.0,
        (7, -0.5): 1.0,
        (7, 1.0): 10.0,
        (8, 0.5): 1.0,
        (8, -0.5): 4.0,
        (9, 0.5): 1.0,
        (9, -0.5): 0.0,
    }
    at[9, 1.0] = 30.0
    asked: list[Probe] = []

    def loss_at(probes: tuple[Probe, ...]) -> list[float]:
        asked.extend(probes)
        return [at[p.seed, p.scale] for p in probes]

    estimator = RowDirections(Curious(0.5))
    losses = losses_of(estimator, DRAW, None, loss_at)
    assert [(p.seed, p.rows) for p in asked[6:]] == [(7, (0, 3)), (9, (2, 3))]
    assert estimator.tell(DRAW, losses)[0] == (13.0, 5.0, 31.0)


def test_what_is_recorded_is_whole() -> None:
    estimator = ExactSums(RowDirections(TwoPoint(1e-3)))
    drawn = np.random.RandomState(0)
    for _ in range(50):
        losses = list(1 + drawn.randn(6) * 10.0 ** drawn.randint(-6, 1, 6))
        plain, _ = RowDirections(TwoPoint(1e-3)).tell(DRAW, losses)
        values, _ = estimator.tell(DRAW, losses)
        q, e = whole(values)
        assert values == tuple(n * 2.0**e for n in q) == rounded(plain)
        assert 3 * max(map(abs, q)) < LIMIT
        assert values == tuple(map(as_float32, values))


def test_directions_of_one_scaling_are_rounded_together() -> None:
    """What moves other tensors is no part of their sum, and costs no bit of it."""

    class Apart(TwoPoint):
        def directions(self, draw: Draw, values: Any) -> tuple[Direction, ...]:
            return tuple(
                Direction(s, v, SCALINGS[i]) for i, (s, v) in enumerate(zip(draw.seeds, values, strict=True))
            )

    SCALINGS = (one := Scaling("one", (1.0, 0.0)), Scaling("other", (0.0, 1.0)), one)
    small, large = as_float32(1 / 3), as_float32(1e7 / 3)
    losses = [small, 0.0, large, 0.0, small / 3, 0.0]
    values, _ = ExactSums(Apart(0.5)).tell(DRAW, losses)
    assert values == (
        *rounded([small, as_float32(small / 3)])[:1],
        large,
        rounded([small, as_float32(small / 3)])[1],
    )


class Quadratics(Engine):
    """Row i has the loss |theta - x_i|^2 / 2: an example is a point."""

    def __init__(self, weights: Weights) -> None:
        self.weights, self.updates = weights, []

    def losses(self, batch: Any, probes: Any) -> list[float]:
        found = []
        for probe in probes:
            at = self.weights.zeros()
            for mine, theta in zip(at.tunables, self.weights.tunables, strict=True):
                mine.tensor.copy_(theta.tensor)
            at.add_noise_(probe)
            point = torch.cat([t.tensor.flatten() for t in at.tunables]).double()
            found.append(float(torch.stack([(point - x).square().sum() / 2 for x in batch]).mean()))
        return found

    def apply(self, update: Any) -> None:
        self.updates.append(update)

    logprobs = generate = None  # type: ignore[assignment]


@pytest.mark.parametrize("noise", ["rank-one", "low-rank", "gaussian"])
@pytest.mark.parametrize("estimator", ["two-point", "one-sided"])
def test_the_mean_estimate_is_the_gradient(noise: Any, estimator: str) -> None:
    """And with one direction for all rows its variance is larger, by what the documentation of the class says."""
    generator = torch.Generator().manual_seed(0)
    batch = list(torch.randn(4, 10, dtype=torch.float64, generator=generator))
    theta = torch.randn(10, generator=generator)
    truth = theta.double() - torch.stack(batch).mean(0)
    spread = {}
    for parts in (1, 4):
        weights = Weights([("w", theta[:6].view(2, 3).clone()), ("b", theta[6:].clone())], kind=noise)
        config = MeZOConfig.build(
            estimator=estimator, noise=noise, row_directions=parts, batch_size=4, epsilon=1e-2
        )
        engine, estimates = Quadratics(weights), []
        for step in range(3000):
            update, _, _ = mezo_step(engine, build(config, weights), [batch], draw_of(1, step, parts), 0.0)
            g = weights.zeros()
            g.update_(
                [d.seed for d in update.directions],
                [d.projected_grad for d in update.directions],
                factor=1 / parts,
            )
            estimates.append(torch.cat([t.tensor.flatten() for t in g.tunables]).double())
        found = torch.stack(estimates)
        spread[parts] = float(found.var(0).sum())
        error = (found.mean(0) - truth).abs()
        assert float((error / (found.std(0) / len(found) ** 0.5)).max()) < 5  # standard errors, of 10 numbers
    # of one direction on all: (d - 1) |g|^2, or (d + 1) Gaussian; on a row each: of each row's own gradient, over 4
    rows = torch.stack([theta.double() - x for x in batch])
    expected = float(rows.square().sum(1).mean() / 4 / truth.square().sum())
    assert spread[4] / spread[1] == pytest.approx(expected, rel=0.25)


def test_an_engine_that_knows_nothing_of_parts_is_asked_for_each() -> None:
    weights = Weights([("w", torch.zeros(3))])
    batch: Any = list(torch.eye(3, dtype=torch.float64)) * 2
    engine = Quadratics(weights)
    probes = [
        Probe(1, 0.0, rows=(1, 3)),
        Probe(1, 0.5),
        Probe(2, 0.25, rows=(0, 3)),
        Probe(3, 0.5, rows=(1, 3)),
    ]
    expected = [
        engine.losses(batch if p.rows is None else batch[2 * p.rows[0] :][:2], [p])[0] for p in probes
    ]
    assert engine.losses_each([batch, batch], probes) == [expected, expected]
    with pytest.raises(MezoError, match="row_directions=4 does not divide the 6 examples"):
        part_of(batch, (0, 4))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (dict(row_directions=3, batch_size=4), "row_directions=3 does not divide batch_size=4"),
        (dict(row_directions=2, num_directions=2), "needs num_directions=1"),
        (dict(row_directions=2, estimator="fzoo"), "needs estimator other than fzoo or cone or es"),
        (dict(noise="rank-one", optimizer="momentum-rebuilt"), "needs optimizer other than momentum-rebuilt"),
    ],
)
def test_what_does_not_go_together_is_said_in_a_line(base: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(MezoError, match=said) as error:
        run(base, **settings)
    assert "\n" not in str(error.value)


def test_a_closure_cannot_be_cut() -> None:
    opt = MeZO(torch.nn.Linear(2, 2))
    opt.estimator = RowDirections(opt.estimator)
    with pytest.raises(MezoError, match="a closure computes the loss of all its rows"):
        opt.step(lambda: 1.0)


def test_mezo_takes_rank_one_noise() -> None:
    model, x = torch.nn.Linear(8, 8), torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    opt = MeZO(model, lr=0.02, eps=1e-3, noise="rank-one", num_directions=2)
    first = opt.step(lambda: model(x).square().mean())
    for _ in range(300):
        last = opt.step(lambda: model(x).square().mean())
    assert last < 0.3 * first
    assert opt.last_update is not None
    assert rounded(opt.last_update.values) == opt.last_update.values


AROUND: dict[str, dict[str, Any]] = {
    "alone": {},
    "bfloat16": {"dtype": "bfloat16", "weight_decay": 0.1},
    "adapter": {"tuning": "lora", "optimizer": "adam"},
    "blocks": {"blocks": "random", "layers_per_step": 2, "normalize_perturbations": True},
    "each": {"blocks": "each", "clip_quantile": 0.5, "estimator": "one-sided"},
    "scaled": {"layer_scaling": "variance", "optimizer": "momentum", "dtype": "bfloat16"},
    "in place": {"memory": "store"},
    "low-rank": {"noise": "low-rank", "optimizer": "adam-rebuilt", "history": 3},
    "gaussian": {"noise": "gaussian", "estimator": "sign"},
    "one-point": {"estimator": "one-point"},
}


@pytest.mark.parametrize("around", AROUND)
def test_a_run_replays_to_the_same_bytes(base: Path, tmp_path: Path, around: str) -> None:
    settings = {"noise": "rank-one", "row_directions": 4, "gradient_accumulation": 2, **AROUND[around]}
    result = run(base, tmp_path / "run", **settings)
    layers = len({"embed", "0", "1", "norm", "head"}) if around == "each" else 1
    assert result.trajectory is not None
    records = trajectory.read(result.trajectory).records
    assert records.shape == (12, 4 * layers)
    if settings["noise"] == "rank-one":
        each = records.reshape(-1, 4).tolist()  # of a step, or of a layer in it
        assert [rounded(values) for values in each] == [tuple(values) for values in each]
    if around == "in place":  # theta drifts beside its records
        return
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / written.name)


def test_estimators_of_plugins_may_record_what_is_no_slope() -> None:
    class Odd(TwoPoint):
        def width(self, n: int) -> int:
            return n + 1

        def tell(self, draw: Draw, losses: Any, state: Any = None) -> tuple[tuple[float, ...], Any]:
            return (*super().tell(draw, losses, state)[0], 0.1), state

        def directions(self, draw: Draw, values: Any) -> tuple[Direction, ...]:
            return super().directions(draw, values[:-1])

    inner: Estimator = Odd(0.5)
    losses = [1 / 3, 0.0, 1 / 7, 0.0, 1 / 9, 0.0]
    assert ExactSums(inner).tell(DRAW, losses) == inner.tell(DRAW, losses)
