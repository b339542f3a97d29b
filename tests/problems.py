"""Two small problems on which every estimator and optimizer must descend, and a run that replays.

>>> run = descend(MeZOConfig.build(estimator="two-point", num_steps=200), QUADRATIC)
>>> run.last < 0.5 * run.first
>>> replayed(run).checksum() == run.weights.checksum()
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch

from mezo import estimators
from mezo.algorithm import draw_of, mezo_step, update_of
from mezo.build.schedule import directions_at, learning_rate, optimizer_for
from mezo.config import MeZOConfig
from mezo.engines.base import Engine
from mezo.scoring import Example
from mezo.types import Probe, Update
from mezo.weights.weights import Weights

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Problem:
    """A loss over named tensors; the names put them into layers."""

    name: str
    start: Callable[[], Tensors]  # float32
    loss: Callable[[Tensors], torch.Tensor]  # of float64 tensors; differentiable


def _drawn(seed: int, shapes: dict[str, tuple[int, ...]], scale: float = 1.0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


_SHAPES = {
    "embed.weight": (2, 4),
    "layers.0.weight": (3, 4),
    "layers.1.weight": (4, 3),
    "layers.1.bias": (3,),
}
_TARGET = _drawn(1, _SHAPES)
_CURVATURE = {name: 0.3 + t.abs() for name, t in _drawn(2, _SHAPES).items()}


def _quadratic(w: Tensors) -> torch.Tensor:
    """Sums of curvature * distance^2 / 2; eigenvalues from 0.3 to about 3, 35 parameters."""
    parts = [(_CURVATURE[n].double() * (t - _TARGET[n].double()).square()).sum() / 2 for n, t in w.items()]
    return torch.stack(parts).sum()


_INPUTS = torch.randn(24, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
_OUTPUTS = torch.sin(2 * _INPUTS[:, :1]) + 0.5 * _INPUTS[:, 1:2]


def _network(w: Tensors) -> torch.Tensor:
    """Mean squared error of 3 -> 5 -> 1 with tanh on 24 points: 26 parameters."""
    hidden = torch.tanh(_INPUTS @ w["layers.0.weight"].T + w["layers.0.bias"])
    return (hidden @ w["layers.1.weight"].T + w["layers.1.bias"] - _OUTPUTS).square().mean()


QUADRATIC = Problem("quadratic", lambda: _drawn(5, _SHAPES, scale=0.5), _quadratic)
NETWORK = Problem(
    "network",
    lambda: _drawn(
        4,
        {
            "layers.0.weight": (5, 3),
            "layers.0.bias": (5,),
            "layers.1.weight": (1, 5),
            "layers.1.bias": (1,),
        },
        scale=0.5,
    ),
    _network,
)
PROBLEMS = {problem.name: problem for problem in (QUADRATIC, NETWORK)}

# Steps of about the same length with SGD: slopes here are of order 3, those of sign and fzoo of order 1;
# and the one-point estimator, of which most is noise, takes shorter ones.
RATES = {"sign": 0.03, "fzoo": 0.03, "es": 0.03, "one-point": 0.0015}
RATE = 0.01


def config_for(**changes: Any) -> MeZOConfig:
    """Settings that descend on both problems with SGD, whatever the estimator and what is around it."""
    estimator = changes.get("estimator", "two-point")
    values = dict(
        num_steps=300,
        epsilon=0.02,
        # fzoo divides by a spread, which two losses do not show
        num_directions=8 if estimator == "fzoo" else 2,
        learning_rate=RATES.get(estimator, RATE),
    )
    if changes.get("normalize_perturbations"):  # docs/perturbations.md: d is about 30
        values |= dict(epsilon=0.02 * 30**0.5, learning_rate=values["learning_rate"] * 30)
    return MeZOConfig.build(**{**values, **changes})


class Toy:
    """A problem in the place of an engine: theta in float32, its loss in float64."""

    def __init__(self, problem: Problem, config: MeZOConfig):
        self.problem = problem
        self.weights = Weights(problem.start().items(), kind=config.noise, rank=config.noise_rank)
        self.optimizer = optimizer_for(config)
        self.state = self.optimizer.init(self.weights)

    def loss(self) -> float:
        return float(self.problem.loss({t.name: t.tensor.double() for t in self.weights.tunables}))

    def at(self, probe: Probe) -> float:
        theta = [t.tensor.clone() for t in self.weights.tunables]
        if probe.scale:
            self.weights.add_noise_(probe)
        found = self.loss()
        for t, before in zip(self.weights.tunables, theta, strict=True):
            t.tensor.copy_(before)
        return found

    def losses(self, batch: Sequence[Example], probes: Sequence[Probe]) -> list[float]:
        return [self.at(probe) for probe in probes]

    def losses_each(self, batches: Sequence[Sequence[Example]], probes: Sequence[Probe]) -> list[list[float]]:
        return [self.losses(batch, probes) for batch in batches]

    def apply(self, update: Update) -> None:
        self.state = self.optimizer.apply_(self.weights, self.state, update)


@dataclass
class Run:
    """What came of it: losses at theta before and after, and the projected gradients as a trajectory has them."""

    config: MeZOConfig
    problem: Problem
    weights: Weights
    first: float
    last: float = 0.0
    records: list[np.ndarray] = field(default_factory=list)  # (width,) float32 a step


def descend(config: MeZOConfig, problem: Problem) -> Run:
    """Algorithm 1 on a problem, from its start, with the config's estimator and optimizer."""
    engine = Toy(problem, config)
    estimator = estimators.build(config, engine.weights)
    run, state = Run(config, problem, engine.weights, engine.loss()), estimator.init()
    for step in range(config.num_steps):
        draw = draw_of(config.seed, step, directions_at(config, step))
        rate = learning_rate(config, step)
        update, _, state = mezo_step(cast(Engine, engine), estimator, [[]], draw, rate, state)
        values = update.values
        assert all(value == float(np.float32(value)) for value in values)
        assert len(values) == estimator.width(len(draw.seeds))
        run.records.append(np.array(values, dtype=np.float32))
    run.last = engine.loss()
    return run


def replayed(run: Run) -> Weights:
    """The weights again, from the start and the recorded numbers alone."""
    engine = Toy(run.problem, run.config)
    estimator = estimators.build(run.config, engine.weights)
    for step, record in enumerate(run.records):
        draw = draw_of(run.config.seed, step, directions_at(run.config, step))
        engine.apply(update_of(estimator, draw, learning_rate(run.config, step), [float(g) for g in record]))
    return engine.weights
