"""Probes that each ask for a part of the batch, in the passes that one direction for all rows needs.

The rows of the whole batch are laid out once for each slot (a sign, say), and each token goes along the direction of
its row's part. A token is marked with its part while rows are laid out, so that no layout shares one between parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from mezo.engines.base import part_of
from mezo.engines.perturb.deal import Deal
from mezo.engines.transformers.batch import BatchPart, LaidOut
from mezo.objectives import LogprobObjective
from mezo.scoring import Example, ScoringBatch, pose
from mezo.types import Probe
from mezo.weights.weights import Weights

_MARK = 32  # bits of a token below its part's number


class Dealing(Protocol):
    """What is asked of an engine; `TransformersEngine` is one."""

    def laid_out(self, posed: ScoringBatch, num_probes: int = 1) -> LaidOut:
        """The batch as the present form lays it out."""
        ...


@dataclass(frozen=True, slots=True)
class Slots:
    """The probes of a step as [slot][part], and the place of each among them."""

    probes: tuple[tuple[Probe, ...], ...]
    places: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, probes: Sequence[Probe]) -> "Slots | None":
        """None unless every part asks for the same: as many probes, of the same scalings, in the same order, all along
        one direction.
        """
        counts = {probe.rows[1] if probe.rows else 0 for probe in probes}
        if len(counts) != 1 or 0 in counts:
            return None
        by_part: list[list[int]] = [[] for _ in range(counts.pop())]
        for place, probe in enumerate(probes):
            by_part[probe.rows[0] if probe.rows else 0].append(place)
        if len({len(places) for places in by_part}) != 1:
            return None
        places = tuple(zip(*by_part, strict=True))
        found = tuple(tuple(probes[i] for i in slot) for slot in places)
        alike = all(len({(p.scaling, p.scale != 0, p.drift) for p in slot}) == 1 for slot in found)
        one = all(len({probes[i].seed for i in part if probes[i].scale}) <= 1 for part in by_part)
        return cls(found, places) if alike and one and not any(p.drift for p in probes) else None

    @property
    def first(self) -> list[Probe]:
        """Of each slot one, which stands for the others."""
        return [slot[0] for slot in self.probes]


@dataclass(frozen=True, slots=True)
class DealtBatch:
    """A batch in K parts, laid out for a number of slots at once."""

    parts: tuple[ScoringBatch, ...]
    laid_out: LaidOut
    part_of_token: tuple[torch.Tensor, ...]  # of each share, (n,) int64: its rectangle laid flat

    @property
    def queries(self) -> list[slice]:
        """Those of each part, among the queries of all."""
        ends = np.cumsum([len(part.query_row) for part in self.parts])
        return [slice(end - len(part.query_row), end) for end, part in zip(ends, self.parts, strict=True)]

    @property
    def longest(self) -> int:
        """The part that has the longest row."""
        lengths = [max(map(len, part.rows)) for part in self.parts]
        return lengths.index(max(lengths))

    def is_for(self, parts: int, slots: int) -> bool:
        """Whether it was prepared for so many parts and slots."""
        return len(self.parts) == parts and self.laid_out.num_probes == slots

    def deals(self, slots: Slots, first: int, count: int) -> list[Deal]:
        """Of each share, for some of the slots."""
        some, shares = slots.probes[first : first + count], self.laid_out.shares
        widths = [share.layout.input_ids.shape[1] for share in shares]
        return [Deal(some, part, width) for part, width in zip(self.part_of_token, widths, strict=True)]

    def losses(self, slots: Slots, found: np.ndarray, objective: LogprobObjective) -> list[float]:
        """The objective of each part at its own probes, as these were asked for; found: (slots, Q)."""
        losses: dict[int, float] = {}
        for row, places in zip(found, slots.places, strict=True):
            for part, mine, place in zip(self.parts, self.queries, places, strict=True):
                losses[place] = objective(part, row[mine])
        return [losses[place] for place in range(len(losses))]


def dealt(
    engine: Dealing, batch: Sequence[Example], objective: LogprobObjective, parts: int, slots: int
) -> DealtBatch:
    """The batch in `parts` parts, laid out for so many slots at once. Raises MezoError if it cannot be cut so."""
    whole = pose(batch, answers_only=objective.answers_only)
    own = [pose(part_of(batch, (k, parts)), answers_only=objective.answers_only) for k in range(parts)]
    part = np.zeros(len(whole.rows), dtype=np.int64)
    part[whole.query_row] = whole.candidate_example[whole.query_candidate] // (len(batch) // parts)
    marked = tuple(
        tuple(token | int(k) << _MARK for token in row) for row, k in zip(whole.rows, part, strict=True)
    )
    found = engine.laid_out(replace(whole, rows=marked), slots)
    shares = [_unmarked(share) for share in found.shares]
    laid_out = LaidOut(whole, slots, tuple(share for share, _ in shares))
    return DealtBatch(tuple(own), laid_out, tuple(of for _, of in shares))


def has_factors(weights: Weights) -> bool:
    """Whether a token can go along a direction of its own: the noise of every matrix is of two factors."""
    return all(t.low_rank is not None or t.tensor.dim() < 2 for t in weights.tunables)


def _unmarked(share: BatchPart) -> tuple[BatchPart, torch.Tensor]:
    """A share of tokens as they are, and the part of each."""
    ids = share.layout.input_ids
    rows = tuple(tuple(token & (1 << _MARK) - 1 for token in row) for row in share.rows)
    plain = replace(share, layout=replace(share.layout, input_ids=ids & (1 << _MARK) - 1), rows=rows)
    return plain, (ids >> _MARK).flatten()
