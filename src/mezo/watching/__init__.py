"""What a long run should be told of itself: it explodes, it stands still, it gets no better."""

from mezo.watching.explosion import ExplodingLoss
from mezo.watching.watch import Notice, Watch, watch_of

__all__ = ["ExplodingLoss", "Notice", "Watch", "watch_of"]
