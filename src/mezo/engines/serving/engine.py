"""theta + eps z on an engine that serves: the same for every `Backend`."""

import abc
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from mezo.engines.base import Engine, PreparedBatch
from mezo.engines.counts import Counts
from mezo.engines.serving.backend import Answer, Ask, Backend
from mezo.engines.serving.requests import Asked, asked, check_fresh
from mezo.noise.seeds import request_seed
from mezo.objectives import LogprobObjective, Objective, OutputObjective
from mezo.scoring import Example, ScoringBatch, pose
from mezo.types import THETA, Probe, Update
from mezo.util.clock import since
from mezo.util.profiling import span
from mezo.util.writing import GREEDILY, Seeded, Writing, outputs_of


@dataclass(frozen=True, slots=True)
class ServedPoint:
    """A probe that the engine's model can be asked at now."""

    adapter: str | None  # its name; None: the engine's own weights are at the probe
    fresh: bool  # whether nothing of it was computed before


class Placement(abc.ABC):
    """How the engine's model gets to a probe, and where theta is."""

    @abc.abstractmethod
    def visit(self, probes: Sequence[Probe]) -> Iterator[Sequence[ServedPoint]]:
        """The probes in order, in groups that can be asked at once. Close it when done with it."""

    @abc.abstractmethod
    def apply(self, update: Update) -> None:
        """Move theta."""

    @abc.abstractmethod
    def finished(self, model: Any) -> Any:
        """The tuned model as `mezo.tuning.save` takes it; model: the one that was tuned, without its weights."""

    @abc.abstractmethod
    def leave(self, name: str) -> None:
        """Leave the tuned model in the engine, under this name where it has names."""


class ServingEngine(Engine):
    """Losses from a `Backend`, at the probes that a `Placement` puts its model at.

    After the run `serve` leaves the result in the engine; `close` ends the engine.
    """

    def __init__(
        self,
        backend: Backend,
        placement: Placement,
        objective: Objective,
        *,
        tokenizer: Any,
        writing: Writing = GREEDILY,
    ):
        self.backend, self.placement, self.objective = backend, placement, objective
        self.tokenizer, self.writing = tokenizer, writing
        self.counts = Counts()

    # ---------------------------------------------------------------- the engine interface

    def prepare(self, batch: Sequence[Example]) -> Sequence[Example]:
        if not isinstance(self.objective, LogprobObjective):
            return tuple(batch)
        posed = pose(batch, answers_only=self.objective.answers_only)
        return PreparedBatch(tuple(batch), (posed, asked(posed)))

    def losses(self, batch: Sequence[Example], probes: Sequence[Probe]) -> list[float]:
        objective = self.objective
        if isinstance(objective, OutputObjective):
            examples, seeded = outputs_of(batch, self.writing.samples)
            outputs = self._written(examples, probes, self.writing, seeded)
            return [objective(examples, texts) for texts in outputs]
        assert isinstance(objective, LogprobObjective)
        if not isinstance(batch, PreparedBatch):
            batch = self.prepare(batch)
            assert isinstance(batch, PreparedBatch)
        posed, wanted = batch.made
        return [objective(posed, row) for row in self._scored(wanted, probes)]

    def logprobs(self, batch: ScoringBatch, probes: Sequence[Probe] = (THETA,)) -> np.ndarray:
        return np.stack(self._scored(asked(batch), probes))

    def generate(
        self,
        examples: Sequence[Example],
        probe: Probe = THETA,
        *,
        max_new_tokens: int | None = None,
        stop: str | None = None,
    ) -> list[str]:
        return self._written(examples, [probe], self.writing.greedily(max_new_tokens, stop))[0]

    @property
    def writes(self) -> bool:
        return isinstance(self.objective, OutputObjective)

    def apply(self, update: Update) -> None:
        self.placement.apply(update)

    def tuned(self, model: Any) -> Any:
        return self.placement.finished(model)

    def serve(self, name: str) -> None:
        """Leave the tuned model in the engine: a LoRA adapter under `name`, or the tuned weights themselves."""
        self.placement.leave(name)

    def close(self) -> None:
        self.backend.close()

    # ---------------------------------------------------------------- one pass

    def _scored(self, wanted: Asked, probes: Sequence[Probe]) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        with closing(self.placement.visit(probes)) as groups:  # type: ignore[type-var]
            for points in groups:
                asks = [ask for point in points for ask in wanted.of(point.adapter)]
                began = time.monotonic()
                with span("forward"):
                    answers = self.backend.score(asks)
                self._count(wanted.tokens * len(points), answers, since(began))
                size = len(wanted.asks)
                for n, point in enumerate(points):
                    mine = slice(n * size, (n + 1) * size)
                    if point.fresh:
                        check_fresh(asks[mine], answers[mine])
                    found.append(wanted.values(answers[mine]))
        return found

    def _written(
        self,
        examples: Sequence[Example],
        probes: Sequence[Probe],
        writing: Writing,
        seeded: Sequence[Seeded] = (),
    ) -> list[list[str]]:
        """[probe][example]: the adapters that can be asked at once are asked in one batch."""
        seeds = [request_seed(*each) for each in seeded] if writing.draws else [0] * len(examples)
        rows = [(example.asked, seed) for example, seed in zip(examples, seeds, strict=True)]
        found: list[list[str]] = []
        with closing(self.placement.visit(probes)) as groups:  # type: ignore[type-var]
            for points in groups:
                asks = [Ask(row, adapter=p.adapter, seed=seed) for p in points for row, seed in rows]
                with span("forward"):
                    texts = self.backend.write(asks, writing)
                for start in range(0, len(asks), len(rows)):
                    own = zip(examples, texts[start : start + len(rows)], strict=True)
                    found.append([example.said(writing.cut(text)) for example, text in own])
        return found

    def _count(self, posed: int, answers: Sequence[Answer], seconds: float) -> None:
        """posed: tokens of all rows, those that were asked for once because they are equal included."""
        rows, cached = sum(a.prompt_tokens for a in answers), sum(a.cached_tokens for a in answers)
        reused, computed = cached + max(0, posed - rows), rows - cached
        self.counts.asked += reused + computed
        self.counts.computed += computed
        self.counts.reused += reused
        self.counts.seconds_saved += seconds * reused / max(1, computed)
