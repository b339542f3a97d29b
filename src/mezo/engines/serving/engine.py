"""theta + eps z on an engine that serves: the same for every `Backend`."""

import abc
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from mezo.engines.base import Engine, PreparedBatch, part_of
from mezo.engines.counts import Counts
from mezo.engines.output_text import OutputText
from mezo.engines.serving.backend import Answer, Ask, Backend, Tokens
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


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs that are wanted after prompts, and what each is drawn by."""

    examples: Sequence[Example]
    seeded: Sequence[Seeded] = ()

    def rows(self, writing: Writing) -> list[tuple[Tokens, int]]:
        """Each prompt, and the seed of its output."""
        seeds = [request_seed(*each) for each in self.seeded] if writing.draws else [0] * len(self.examples)
        return [(example.asked, seed) for example, seed in zip(self.examples, seeds, strict=True)]


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
        text: OutputText,
        writing: Writing = GREEDILY,
    ):
        """text, writing: for objectives and metrics of generated text."""
        self.backend, self.placement, self.objective = backend, placement, objective
        self.text, self.tokenizer, self.writing = text, text.tokenizer, writing
        self.counts = Counts()

    # ---------------------------------------------------------------- the engine interface

    def prepare(self, batch: Sequence[Example]) -> Sequence[Example]:
        if not isinstance(self.objective, LogprobObjective):
            return tuple(batch)
        posed = pose(batch, answers_only=self.objective.answers_only)
        return PreparedBatch(tuple(batch), (posed, asked(posed)))

    def losses(self, batch: Sequence[Example], probes: Sequence[Probe]) -> list[float]:
        return self._losses([self._ready(batch)] * len(probes), probes)

    def dealt_losses(self, batch: Sequence[Example], probes: Sequence[Probe]) -> list[float]:
        """The parts of all probes in one call, as far as the engine's model can be at all of them."""
        parts = {
            rows: self._ready(batch if rows is None else part_of(batch, rows))
            for rows in dict.fromkeys(probe.rows for probe in probes)
        }
        return self._losses([parts[probe.rows] for probe in probes], probes)

    def _ready(self, batch: Sequence[Example]) -> PreparedBatch | Outputs:
        if isinstance(self.objective, OutputObjective):
            return Outputs(*outputs_of(batch, self.writing.samples))
        ready = batch if isinstance(batch, PreparedBatch) else self.prepare(batch)
        assert isinstance(ready, PreparedBatch)
        return ready

    def _losses(self, ready: Sequence[Any], probes: Sequence[Probe]) -> list[float]:
        """ready: of each probe, what `_ready` has made of its rows."""
        objective = self.objective
        if isinstance(objective, OutputObjective):
            texts = self._written(ready, probes, self.writing)
            return [objective(own.examples, found) for own, found in zip(ready, texts, strict=True)]
        assert isinstance(objective, LogprobObjective)
        values = self._scored([own.made[1] for own in ready], probes)
        return [objective(own.made[0], found) for own, found in zip(ready, values, strict=True)]

    def logprobs(self, batch: ScoringBatch, probes: Sequence[Probe] = (THETA,)) -> np.ndarray:
        return np.stack(self._scored([asked(batch)] * len(probes), probes))

    def generate(
        self,
        examples: Sequence[Example],
        probe: Probe = THETA,
        *,
        max_new_tokens: int | None = None,
        stop: str | None = None,
    ) -> list[str]:
        return self._written([Outputs(examples)], [probe], self.writing.greedily(max_new_tokens, stop))[0]

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

    def _scored(self, wanted: Sequence[Asked], probes: Sequence[Probe]) -> list[np.ndarray]:
        """wanted: of each probe."""
        found: list[np.ndarray] = []
        with closing(self.placement.visit(probes)) as groups:  # type: ignore[type-var]
            for points in groups:
                own = wanted[len(found) :][: len(points)]
                asks = [each.of(point.adapter) for each, point in zip(own, points, strict=True)]
                began = time.monotonic()
                with span("forward"):
                    answers = iter(self.backend.score([ask for each in asks for ask in each]))
                mine = [list(islice(answers, len(each))) for each in asks]
                self._count(
                    sum(each.tokens for each in own), [a for part in mine for a in part], since(began)
                )
                for point, each, asked_here, answered in zip(points, own, asks, mine, strict=True):
                    if point.fresh:
                        check_fresh(asked_here, answered)
                    found.append(each.values(answered))
        return found

    def _written(
        self, wanted: Sequence[Outputs], probes: Sequence[Probe], writing: Writing
    ) -> list[list[str]]:
        """[probe][output]: the adapters that can be asked at once are asked in one batch. wanted: of each probe."""
        writing = replace(writing, ends=tuple(self.text.ends_of(writing)))
        rows = {id(own): own.rows(writing) for own in wanted}
        found: list[list[str]] = []
        with closing(self.placement.visit(probes)) as groups:  # type: ignore[type-var]
            for points in groups:
                own = [rows[id(each)] for each in wanted[len(found) :][: len(points)]]
                asks = [
                    Ask(row, adapter=point.adapter, seed=seed)
                    for point, each in zip(points, own, strict=True)
                    for row, seed in each
                ]
                with span("forward"):
                    outputs = iter(self.backend.write(asks, writing))
                for each in wanted[len(found) :][: len(points)]:
                    found.append([e.said(self.text.output(next(outputs), writing)) for e in each.examples])
        return found

    def _count(self, posed: int, answers: Sequence[Answer], seconds: float) -> None:
        """posed: tokens of all rows, those that were asked for once because they are equal included."""
        rows, cached = sum(a.prompt_tokens for a in answers), sum(a.cached_tokens for a in answers)
        reused, computed = cached + max(0, posed - rows), rows - cached
        self.counts.asked += reused + computed
        self.counts.computed += computed
        self.counts.reused += reused
        self.counts.seconds_saved += seconds * reused / max(1, computed)
