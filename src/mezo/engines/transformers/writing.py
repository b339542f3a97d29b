"""What `TransformersEngine` does where text is wanted: for one probe after another, or for many at once."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from mezo.config import Shortcut
from mezo.engines.base import part_of
from mezo.engines.counts import Counts
from mezo.engines.in_place.walk import InPlace
from mezo.engines.perturb.deal import CannotStack
from mezo.engines.perturb.population import Population
from mezo.engines.transformers.generate import Tokens, Writer, at
from mezo.engines.transformers.together import Together, Wanted
from mezo.errors import MezoError
from mezo.objectives import OutputObjective
from mezo.scoring import Example
from mezo.types import THETA, Probe
from mezo.util.writing import Seeded, Writing, outputs_of
from mezo.weights.weights import Weights

_FEWEST = 3  # probes that are written for together: two take no more passes one after the other than their rows fill


class Writes:
    """Texts at probes, and what an objective makes of them."""

    model: Any
    weights: Weights
    kind: Literal["causal", "masked"]
    pad: int
    max_tokens: int
    in_place: InPlace | None
    counts: Counts
    share_prefixes: bool
    tokenizer: Any
    writing: Writing
    rows_at_once: int
    allows: Callable[[Shortcut], bool]
    _writer: Writer | None
    _together: Together | None

    def generate(
        self,
        examples: Sequence[Example],
        probe: Probe = THETA,
        *,
        max_new_tokens: int | None = None,
        stop: str | None = None,
    ) -> list[str]:
        prompts = [example.asked for example in examples]
        texts = self._written(prompts, probe, self.writing.greedily(max_new_tokens, stop))
        return [example.said(text) for example, text in zip(examples, texts, strict=True)]

    def rewarded(
        self, batch: Sequence[Example], probes: Sequence[Probe], objective: OutputObjective
    ) -> list[float]:
        """The objective at each probe, of the texts after the rows that it asks for."""
        asked = [batch if probe.rows is None else part_of(batch, probe.rows) for probe in probes]
        wanted = [outputs_of(examples, self.writing.samples) for examples in asked]
        parts = [
            Wanted(probe, [e.asked for e in examples], seeded)
            for probe, (examples, seeded) in zip(probes, wanted, strict=True)
        ]
        texts = self._together_or_apart(parts)
        return [
            objective(examples, [e.said(text) for e, text in zip(examples, own, strict=True)])
            for (examples, _), own in zip(wanted, texts, strict=True)
        ]

    def _together_or_apart(self, parts: Sequence[Wanted]) -> list[list[str]]:
        if self._can_write_together([part.probe for part in parts]):
            assert self._together is not None
            before = replace(self.counts)
            try:
                return self._together(parts, self.writing)
            except CannotStack:  # in this batch; a function of the batch, so that a resumed run does the same
                self.counts.go_back(before)
        return [self._written(part.prompts, part.probe, self.writing, part.seeded) for part in parts]

    def _can_write_together(self, probes: Sequence[Probe]) -> bool:
        if len(probes) < _FEWEST or self.in_place is not None or not self.allows("together"):
            return False
        if self._together is None:
            population = Population(self.model, self.weights)
            self._together = Together(self._checked_writer(), population, self.rows_at_once)
        return self._together.agrees(probes)

    def _written(
        self, prompts: Sequence[Tokens], probe: Probe, writing: Writing, seeded: Sequence[Seeded] = ()
    ) -> list[str]:
        writer = self._checked_writer()
        point = at(self.model, self.weights, probe) if self.in_place is None else self.in_place.at(probe)
        with point:
            return writer(prompts, writing, seeded)

    def _checked_writer(self) -> Writer:
        if self.kind != "causal":
            raise MezoError(
                "a masked language model cannot write text; choose a causal model, or another objective or metric"
            )
        if self.tokenizer is None:
            raise MezoError("an engine needs a tokenizer to write text: pass tokenizer=")
        if self._writer is None:
            self._writer = Writer(
                self.model,
                self.tokenizer,
                pad=self.pad,
                max_tokens=self.max_tokens,
                counts=self.counts,
                shares=self.share_prefixes,
            )
        return self._writer
