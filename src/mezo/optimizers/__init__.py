"""Optimizers: turn an Update into a change of theta. One file each."""

from mezo.optimizers.adam import Adam
from mezo.optimizers.adam_rebuilt import AdamRebuilt
from mezo.optimizers.base import Optimizer
from mezo.optimizers.momentum import Momentum
from mezo.optimizers.momentum_rebuilt import MomentumRebuilt
from mezo.optimizers.muon import Muon
from mezo.optimizers.schedules import SCHEDULES, schedule
from mezo.optimizers.sgd import SGD

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "momentum-rebuilt": MomentumRebuilt,
    "adam": Adam,
    "adam-rebuilt": AdamRebuilt,
    "muon": Muon,
}

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "AdamRebuilt",
    "Momentum",
    "MomentumRebuilt",
    "Muon",
    "Optimizer",
    "schedule",
]
