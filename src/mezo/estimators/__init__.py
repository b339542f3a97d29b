"""Gradient estimators: ask where to evaluate, tell what was found. One file each."""

from mezo.estimators.base import Estimator
from mezo.estimators.normalized import Normalized
from mezo.estimators.two_point import TwoPoint

ESTIMATORS: dict[str, type[Estimator]] = {
    "two-point": TwoPoint,
}

__all__ = ["ESTIMATORS", "Estimator", "Normalized", "TwoPoint"]
