"""What a long run should be told of itself: it explodes, it stands still, it gets no better."""

from mezo.training.monitors.explosion import ExplodingLoss
from mezo.training.monitors.monitor import Watch, watch_of

__all__ = ["ExplodingLoss", "Watch", "watch_of"]
