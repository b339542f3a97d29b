"""A loss that is finite and lost all the same.

A run has exploded when the median loss of its last 50 steps is above both

    three times the median loss of its first steps, and
    the loss of guessing uniformly.

Medians: up to 24 wild batches of 50 change nothing. Three times: the median of the first 64 examples or more is
within about an eighth of the truth, and no run that recovered was there. Guessing: a loss that began near zero may
grow a hundredfold and be good, but a model worse than guessing is broken. Objectives without such a loss (accuracy,
F1, a reward) are not watched. A loss that was broken within its first steps is not seen here; it mostly becomes
infinite, or its slopes are too large (`advice.StepSize`).
"""

import math
from collections import deque
from collections.abc import Sequence
from statistics import fmean, median

from mezo.errors import MezoError
from mezo.events import StepRecord
from mezo.objectives import Objective
from mezo.scoring import Example

WINDOW = 50  # steps
FACTOR = 3.0
FIRST_EXAMPLES, FEWEST_STEPS = 64, 3  # that the beginning is the median of; at most a window of steps


class ExplodingLoss(MezoError):
    """The loss is finite, and worse than guessing and than three times what it began with."""

    of_all_ranks = True


def guessing(objective: Objective, examples: Sequence[Example], vocabulary: int) -> float | None:
    """The loss, in nats, of a model that holds everything for equally likely; None: the objective has none.

    vocabulary: tokens there are.
    """
    if objective.name == "candidate-ce":
        return fmean(math.log(len(e.candidates) / len(e.right)) for e in examples)
    return math.log(vocabulary) if objective.name == "answer-ce" else None


class Explosion:
    """Watches the losses of a run. guess: as `guessing` has it. examples: of a step."""

    def __init__(self, guess: float, examples: int) -> None:
        self.guess = guess
        self._first_steps = min(max(math.ceil(FIRST_EXAMPLES / examples), FEWEST_STEPS), WINDOW)
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self.first = math.nan  # median loss of the first steps
        self.last = math.nan  # of the last 50
        self.best, self.best_steps = math.inf, 0  # the least that has been, and the steps of its middle

    def seen(self, record: StepRecord) -> bool:
        """Whether the run has exploded."""
        self._losses.append(record.loss)
        if math.isnan(self.first) and len(self._losses) == self._first_steps:
            self.first = median(self._losses)
        if len(self._losses) < WINDOW:
            return False
        self.last = median(self._losses)
        if self.last < self.best:
            # up to 24 steps after a rise the median does not know of it, so the end of 50 may lie beyond one
            self.best, self.best_steps = self.last, record.step + 1 - WINDOW // 2
        return self.last > max(FACTOR * self.first, self.guess)
