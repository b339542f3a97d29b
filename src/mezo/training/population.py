"""What a step's record says of its population, where the estimator has one."""

from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any

from mezo.estimators import Estimator
from mezo.objectives import Objective, OutputObjective


def population_of(estimator: Estimator, objective: Objective, losses: Sequence[float]) -> dict[str, Any]:
    """The fields of a StepRecord: the share of groups whose losses are all equal, and the spread of the members' rewards."""
    dead = estimator.dead_groups(losses)
    if dead is None or not isinstance(objective, OutputObjective):
        return {"dead_groups": dead}
    rewards = [-loss for loss in losses]
    spread = {"mean": fmean(rewards), "std": pstdev(rewards), "min": min(rewards), "max": max(rewards)}
    return {"dead_groups": dead, "rewards": spread}
