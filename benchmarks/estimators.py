"""Estimators at equal forward passes, each at the best of a grid of learning rates.

On small problems, those of the tests and a quadratic of 1,000 weights; or, with --data, on a task:

    python -m benchmarks estimators [--seeds 5]
    python -m benchmarks estimators --data FOLDER [--model M] [--task sst2] [--losses 3000] [--rates 1e-5 3e-5]

Prints a line for every method: the best learning rate by its median over the seeds, the loss at the end
(of the problem; or of validation), and how far apart seeds were. The schedule is linear.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from tests.problems import NETWORK, QUADRATIC, Problem, descend

from mezo.algorithm import NonFiniteLoss
from mezo.config import MeZOConfig
from mezo.training.trainer import MeZOTrainer

# Settings as published, and the losses of a step; the cone's warm-up is for 20,000 steps, a tenth of which
# it takes, so it is also tried as that share of the run, and not at all.
METHODS: dict[str, tuple[dict[str, Any], int]] = {
    "two-point": (dict(estimator="two-point"), 2),
    "two-point, n = 4": (dict(estimator="two-point", num_directions=4), 8),
    "cone, beta 0.99": (dict(estimator="cone", cone_warmup=0), 2),
    "cone, beta 0.99, warm-up a tenth": (dict(estimator="cone", cone_warmup=0.1), 2),
    "cone, beta 0.95": (dict(estimator="cone", cone_warmup=0, cone_beta=0.95), 2),
    "cone, beta 0.95, angle 1.0": (dict(estimator="cone", cone_warmup=0, cone_beta=0.95, cone_angle=1.0), 2),
    "fzoo, n = 8": (dict(estimator="fzoo", num_directions=8, noise="rademacher"), 9),
}
WIDE = Problem(
    "quadratic of 1,000 weights",
    lambda: {"layers.0.weight": torch.ones(1, 1000)},
    # eigenvalues from 1 down to 0.001, evenly in their logarithms
    lambda w: (w["layers.0.weight"].square() * torch.logspace(0, -3, 1000, dtype=torch.float64)).sum() / 2,
)
# forward passes of a run, and the learning rates that are tried
ON_PROBLEMS = (
    (QUADRATIC, 600, [2.0**k for k in range(-8, 1)]),
    (NETWORK, 600, [2.0**k for k in range(-8, 1)]),
    (WIDE, 3000, [2.0**k for k in range(-9, 2)]),
)
Score = Callable[[MeZOConfig], float]


def config_of(settings: dict[str, Any], steps: int, **others: Any) -> MeZOConfig:
    settings = {**others, **settings, "num_steps": steps, "schedule": "linear"}
    if "cone_warmup" in settings:
        settings["cone_warmup"] = round(steps * settings["cone_warmup"])
    return MeZOConfig.build(**settings)


def compare(score: Score, rates: Sequence[float], losses: int, seeds: int, **others: Any) -> None:
    for method, (settings, each) in METHODS.items():
        found = {}
        for rate in rates:
            runs = [
                config_of(settings, losses // each, learning_rate=rate, seed=seed, **others)
                for seed in range(seeds)
            ]
            found[rate] = sorted(map(score, runs))
        best = min(found, key=lambda rate: median(found[rate]))
        row = {
            "method": method,
            "losses": losses,
            "learning_rate": best,
            "at_the_end_of_the_grid": best in (rates[0], rates[-1]),
            "median": float(f"{median(found[best]):.4g}"),
            "from": float(f"{found[best][0]:.4g}"),
            "to": float(f"{found[best][-1]:.4g}"),
        }
        print(json.dumps(row), flush=True)


def on_problem(problem: Problem) -> Score:
    def score(config: MeZOConfig) -> float:
        try:
            return descend(config, problem).last
        except NonFiniteLoss:
            return math.inf

    return score


def on_task(config: MeZOConfig) -> float:
    try:
        return MeZOTrainer(config).train().evals[-1].loss
    except NonFiniteLoss:
        return math.inf


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", help="of a task; the small problems need none")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--losses", type=int, default=3000, help="forward passes of a run on a task")
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-6, 1e-5, 3e-5, 1e-4], help="on a task")
    given = parser.parse_args()
    if given.data is not None:
        others = dict(data=given.data, model=given.model, task=given.task, batch_size=16)
        compare(on_task, given.rates, given.losses, given.seeds, **others)
        return
    for problem, losses, rates in ON_PROBLEMS:
        start = descend(config_of({}, 1, learning_rate=0.0), problem).first
        print(f"{problem.name}: starts at {start:.4g}", flush=True)
        compare(on_problem(problem), rates, losses, given.seeds, epsilon=1e-3)
