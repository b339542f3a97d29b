"""Optimizers: turn an Update into a change of theta. One file each."""

from mezo.optimizers.base import Optimizer
from mezo.optimizers.schedules import SCHEDULES, schedule
from mezo.optimizers.sgd import SGD

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
}

__all__ = ["OPTIMIZERS", "SCHEDULES", "SGD", "Optimizer", "schedule"]
