"""What every optimizer offers: explicit state, so that a replay is a fold over the updates."""

import abc
from typing import Any

from mezo.types import Update
from mezo.weights import Weights


class Optimizer(abc.ABC):
    @abc.abstractmethod
    def init(self, weights: Weights) -> Any:
        """The state before the first step."""

    @abc.abstractmethod
    def apply_(self, weights: Weights, state: Any, update: Update) -> Any:
        """Change `weights` in place by `update`; return the next state."""
