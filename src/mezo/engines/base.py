"""Where the model runs. An engine owns theta; nothing above it touches a tensor."""

import abc
from collections.abc import Sequence

import numpy as np

from mezo.scoring import Example, ScoringBatch
from mezo.types import THETA, Probe, Update


class Engine(abc.ABC):
    def prepare(self, batch: Sequence[Example]) -> Sequence[Example]:
        """The batch, made ready for `losses` ahead of its step; another thread may call this."""
        return batch

    @abc.abstractmethod
    def logprobs(self, batch: ScoringBatch, probes: Sequence[Probe] = (THETA,)) -> np.ndarray:
        """(P, Q) float64: every query's log-probability at theta + scale * z(seed), for each probe."""

    @abc.abstractmethod
    def generate(
        self,
        examples: Sequence[Example],
        probe: Probe = THETA,
        *,
        max_new_tokens: int | None = None,
        stop: str = "\n",
    ) -> list[str]:
        """What the model at the probe writes after each prompt, greedily, without the space around it.

        max_new_tokens: None: the engine's own setting. stop: text that ends an output and is no part of it.
        Raises MezoError if the model is no causal one.
        """

    @abc.abstractmethod
    def losses(self, batch: Sequence[Example], probes: Sequence[Probe]) -> list[float]:
        """The objective on the batch at each probe, in order."""

    @abc.abstractmethod
    def apply(self, update: Update) -> None:
        """Move theta. The same call on every rank and in every replay, from the same record."""
