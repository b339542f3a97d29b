"""From a config to the parts of a step: objective, optimizer, estimator, learning rate, number of directions."""

from dataclasses import fields

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.objectives import Objective, objective_named
from mezo.optimizers import OPTIMIZERS, Optimizer, schedule
from mezo.tasks import Task
from mezo.util.plugins import find


def objective_for(config: MeZOConfig, task: Task) -> Objective:
    """The config's objective; "auto" is the task's, which is candidate cross-entropy where there are candidates.

    Raises MezoError if there is no such objective, or it compares candidates and the task has none.
    """
    name = config.objective
    if name == "auto":
        name = task.objective or ("candidate-ce" if task.has_candidates else "answer-ce")
    objective = objective_named(name, task.metrics, timeout=config.reward_timeout)
    if objective.needs_candidates and not task.has_candidates:
        raise MezoError(
            f"objective {name!r} compares candidates, and task {task.name!r} has none; use answer-ce"
        )
    return objective


def optimizer_for(config: MeZOConfig) -> Optimizer:
    """The config's optimizer, with the settings that it takes."""
    kind, settings = find("optimizer", config.optimizer, OPTIMIZERS)
    return kind(**config.model_dump(include={field.name for field in fields(kind)}), **settings)


def learning_rate(config: MeZOConfig, step: int) -> float:
    return config.peak_rate * schedule(
        config.schedule, step, config.num_steps, warmup_steps=config.warmup_steps
    )


def directions_at(config: MeZOConfig, step: int) -> int:
    """n of n-SPSA at a step: constant, or growing linearly over the run (MeZO, appendix A.2); or one for each part
    of the batch.
    """
    if config.row_directions > 1:
        return config.row_directions
    first, last = config.num_directions, config.final_directions or config.num_directions
    return first + round((last - first) * step / max(1, config.num_steps - 1))


def most_directions(config: MeZOConfig) -> int:
    return max(config.num_directions, config.final_directions or 0, config.row_directions)
