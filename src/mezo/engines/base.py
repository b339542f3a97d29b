"""Where the model runs. An engine owns theta; nothing above it touches a tensor."""

import abc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mezo.engines.counts import Counts
from mezo.errors import MezoError
from mezo.scoring import Example, ScoringBatch
from mezo.types import THETA, Probe, Update


@dataclass(frozen=True, slots=True)
class PreparedBatch(Sequence[Example]):
    """The examples of a step, and what `Engine.prepare` has made of them."""

    examples: tuple[Example, ...]
    made: Any

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        return self.examples[index]


class Engine(abc.ABC):
    counts: Counts  # of the work asked for since it was made

    def prepare(self, batch: Sequence[Example]) -> Sequence[Example]:
        """The batch, made ready for `losses` ahead of its step; another thread may call this."""
        return batch

    def prepare_each(self, batches: Sequence[Sequence[Example]]) -> list[Sequence[Example]]:
        """`prepare` of all microbatches of a step."""
        return [self.prepare(batch) for batch in batches]

    @abc.abstractmethod
    def logprobs(self, batch: ScoringBatch, probes: Sequence[Probe] = (THETA,)) -> np.ndarray:
        """(P, Q) float64: every query's log-probability at theta + scale * z(seed), for each probe."""

    def logprobs_each(self, batches: Sequence[ScoringBatch]) -> Iterable[np.ndarray]:
        """`logprobs` of every batch at theta, in order."""
        return map(self.logprobs, batches)

    @abc.abstractmethod
    def generate(
        self,
        examples: Sequence[Example],
        probe: Probe = THETA,
        *,
        max_new_tokens: int | None = None,
        stop: str | None = None,
    ) -> list[str]:
        """Greedy outputs after each prompt at the probe, with what each row's begins with (`Example.said`).

        max_new_tokens: None: the engine's own setting. stop: ends an output, and is no part of it; None: those of the
        engine's own setting. Raises MezoError if the model is not causal.
        """

    @abc.abstractmethod
    def losses(self, batch: Sequence[Example], probes: Sequence[Probe]) -> list[float]:
        """The objective on the whole batch at each probe, in order."""

    def losses_each(self, batches: Sequence[Sequence[Example]], probes: Sequence[Probe]) -> list[list[float]]:
        """`dealt_losses` of all microbatches of a step."""
        return [self.dealt_losses(batch, probes) for batch in batches]

    def dealt_losses(self, batch: Sequence[Example], probes: Sequence[Probe]) -> list[float]:
        """`losses`, each of the rows that its probe asks for (`Probe.rows`): here, one part of the batch after another.

        Raises MezoError if the batch cannot be cut into so many equal parts.
        """
        found: dict[int, float] = {}
        for rows in dict.fromkeys(probe.rows for probe in probes):
            places = [i for i, probe in enumerate(probes) if probe.rows == rows]
            part = batch if rows is None else part_of(batch, rows)
            found.update(zip(places, self.losses(part, [probes[i] for i in places]), strict=True))
        return [found[i] for i in range(len(probes))]

    @abc.abstractmethod
    def apply(self, update: Update) -> None:
        """Move theta. The same call on every rank and in every replay, from the same record."""

    @property
    def holds_theta(self) -> bool:
        """Whether theta and the optimizer's state are in this process, for replays and snapshots."""
        return False

    def packed_state(self) -> Any:
        """The optimizer's state, packed for a snapshot (`Optimizer.pack`). Only where `holds_theta`."""
        raise NotImplementedError

    def restore(self, state: Any) -> None:
        """Go on from this state of the optimizer, as `apply_` returns it; None: before the first step. Only where
        `holds_theta`.
        """
        raise NotImplementedError

    @property
    def writes(self) -> bool:
        """Whether a loss is of texts, so that probes which are asked for in one call share its passes."""
        return False

    def audit_next(self) -> None:
        """Compare some of the next batch's losses and log-probabilities with the model's own forward pass: MezoError
        for a difference beyond rounding. Only for engines that take shortcuts.
        """
        return

    def tuned(self, model: Any) -> Any:
        """The tuned model, as `mezo.tuning.save` takes it. model: the one made ready for tuning."""
        return model

    def serve(self, name: str) -> None:
        """Leave the tuned adapter in the engine under `name`. Raises MezoError where nothing is served."""
        raise MezoError(
            f"nothing can be served as {name!r} by this engine: choose a serving one with engine="
        )

    def close(self) -> None:
        """Give back what the engine holds outside of this process; calling it again does nothing."""
        return


def part_of(batch: Sequence[Example], rows: tuple[int, int]) -> Sequence[Example]:
    """The k-th of K equal parts of a batch, in its order; rows: (k, K)."""
    k, parts = rows
    if len(batch) % parts:
        raise MezoError(
            f"row_directions={parts} does not divide the {len(batch)} examples of a batch, of which each direction has an "
            "equal part; choose a divisor, or give more examples"
        )
    size = len(batch) // parts
    return batch[k * size : (k + 1) * size]
