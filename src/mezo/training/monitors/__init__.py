"""Watching a run: an exploding loss, no movement, no progress, steps that are too large."""

from mezo.training.monitors.explosion import ExplodingLoss
from mezo.training.monitors.monitor import Watch, watch_of

__all__ = ["ExplodingLoss", "Watch", "watch_of"]
