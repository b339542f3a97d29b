"""A loss that gets no better: over a long window it has not fallen by more than its own standard error.

The mean losses of the last W steps and of the W before are compared, W being a tenth of the run and at least 1,000
steps. The standard error comes from means over blocks of 50 steps, which are nearly independent. A run is checked
each half W, from 2 W on, and not in its last W, when nothing is left to change.

A loss that falls by 5 standard errors in W steps is called a plateau with a chance of 3 in 100,000 a check; one that
does not move, in 5 checks of 6. In between, the run gains less than can be measured.
"""

import math
from collections import deque
from statistics import fmean, variance

from mezo.config import MeZOConfig
from mezo.events import StepRecord

BLOCK = 50  # steps
SHORTEST = 1000  # steps of a window
SHARE = 10  # windows to a run


class Plateau:
    """Compares them, and speaks once."""

    def __init__(self, config: MeZOConfig, first_step: int = 0) -> None:
        """first_step: of the run's own."""
        # a rate that is still to rise explains a flat loss
        self._begin = max(first_step, config.warmup_steps)
        steps = max(SHORTEST, (config.num_steps - self._begin) // SHARE)
        self._blocks = -(-steps // (2 * BLOCK)) * 2  # of a window; an even number, for the half
        self._last = config.num_steps - self.window
        self._block: list[float] = []
        self._means: deque[float] = deque(maxlen=2 * self._blocks)
        self._seen = 0  # blocks
        self._spoke = False

    @property
    def window(self) -> int:
        """Steps of one of the two windows."""
        return self._blocks * BLOCK

    def seen(self, record: StepRecord) -> str | None:
        """A warning for people, or None."""
        if self._spoke or not self._begin <= record.step < self._last:
            return None
        self._block.append(record.loss)
        if len(self._block) < BLOCK:
            return None
        self._means.append(fmean(self._block))
        self._block, self._seen = [], self._seen + 1
        if len(self._means) < 2 * self._blocks or self._seen % (self._blocks // 2):
            return None
        text = self._judged(record.learning_rate)
        self._spoke = text is not None
        return text

    def _judged(self, rate: float) -> str | None:
        means = list(self._means)
        before, after = means[: self._blocks], means[self._blocks :]
        error = math.sqrt((variance(before) + variance(after)) / self._blocks)
        if not fmean(before) - fmean(after) <= error:
            return None
        return (
            f"warning: the loss gets no better: {fmean(after):.4g} over the last {self.window:,} steps, "
            f"{fmean(before):.4g} over the {self.window:,} before (standard error of the difference {error:.2g}); "
            f"try three times the learning rate ({3 * rate:.1g}) if it is quiet, a third or more --directions if it is "
            "restless, or stop here"
        )
