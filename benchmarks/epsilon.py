"""How well a projected gradient is measured, by epsilon and by the type of the weights.

Along the same directions, on the same batches, at the untouched weights: the slope found with each
epsilon in each type, against the slope in float32 at epsilon 1e-3.

    python -m benchmarks epsilon --data FOLDER [--model M] [--task sst2] [--directions 14]
"""

import argparse
import json

import numpy as np

from mezo.algorithm import draw_of
from mezo.build.schedule import objective_for
from mezo.build.setup import encode, set_up
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.estimators import TwoPoint
from mezo.models.load import load
from mezo.tasks import task_for

EPSILONS = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2)


def slopes(config: MeZOConfig, directions: int) -> dict[float, np.ndarray]:
    """epsilon -> (directions,) projected gradients."""
    task = task_for(config.task, config.label_words)
    loaded = load(config.model, config.dtype)
    engine = set_up(config, loaded, objective_for(config, task)).engine
    examples = encode(MeZODataset(config.data, task=task), loaded, config)
    found: dict[float, list[float]] = {epsilon: [] for epsilon in EPSILONS}
    for t in range(directions):
        batch = examples.batch(t, 16, 0)
        for epsilon in EPSILONS:
            estimator = TwoPoint(epsilon)
            draw = draw_of(0, t, 1)
            (slope,), _ = estimator.tell(draw, engine.losses(batch, estimator.ask(draw)))
            found[epsilon].append(slope)
    return {epsilon: np.array(values) for epsilon, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--data", required=True)
    parser.add_argument("--label-words", default="awful,wonderful")
    parser.add_argument("--directions", type=int, default=14)
    given = parser.parse_args()
    reference = None
    for dtype in ("float32", "bfloat16"):
        config = MeZOConfig.build(
            model=given.model,
            task=given.task,
            data=given.data,
            dtype=dtype,
            label_words=tuple(given.label_words.split(",")),
        )
        for epsilon, values in slopes(config, given.directions).items():
            reference = values if reference is None else reference
            row = {
                "dtype": dtype,
                "epsilon": epsilon,
                "spread": round(float(values.std()), 2),
                "error_rms": round(float(np.sqrt(np.mean((values - reference) ** 2))), 2),
                "correlation": round(float(np.corrcoef(values, reference)[0, 1]), 3),
            }
            print(json.dumps(row), flush=True)
