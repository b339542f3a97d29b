"""The outputs of many probes in one loop: one cache of keys and values, a token of every row in each pass.

A row leaves when its output is over, and a probe when it has no row left. What is written is what one probe after
another would write, but for rounding; `Together.agrees` compares the two once, before anything is made of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mezo.engines.perturb.population import Population
from mezo.engines.sampling import Chooser
from mezo.engines.transformers.beginnings import BEGUN, TRIED, in_common
from mezo.engines.transformers.generate import Tokens, Undefined, Writer, at, same_logits
from mezo.engines.transformers.plain_forward import NOT_TAKEN
from mezo.engines.transformers.unbroken_head import unbroken_head
from mezo.types import Probe
from mezo.util.profiling import span
from mezo.util.writing import Seeded, Writing

_WORTH = 7 / 8  # rows are dropped when so many or fewer are left

OnLogits = Callable[[torch.Tensor], object]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a probe is asked for."""

    probe: Probe
    prompts: Sequence[Tokens]
    seeded: Sequence[Seeded]


class Together:
    """Writes for all probes at once. Use it only where `agrees`."""

    def __init__(self, writer: Writer, population: Population, rows: int):
        """rows: the most that a batch may have."""
        self.writer, self.population, self.rows = writer, population, rows
        self.model = writer.model
        self._agrees: bool | None = None
        self._shares = False  # what the prompts begin with is computed once for each probe

    def __call__(self, parts: Sequence[Wanted], writing: Writing) -> list[list[str]]:
        """[probe][prompt]: the texts. Every part has as many prompts."""
        for part in parts:
            self.writer.check_room(part.prompts, writing.max_new_tokens)
        count = len(parts[0].prompts)
        texts = [[""] * count for _ in parts]
        order = sorted(range(count), key=lambda i: (max(len(part.prompts[i]) for part in parts), i))
        probes = max(1, self.rows // count)
        for start in range(0, len(parts), probes):
            for first in range(0, count, self.rows):
                some, mine = parts[start : start + probes], order[first : first + self.rows]
                written = self._written(
                    [
                        Wanted(p.probe, [p.prompts[i] for i in mine], [p.seeded[i] for i in mine])
                        for p in some
                    ],
                    writing,
                    shared=self._shared([p.prompts[i] for p in some for i in mine], len(mine), writing),
                )
                for place, tokens in enumerate(written):
                    text = writing.cut(self.writer.text(tokens, writing))
                    texts[start + place // len(mine)][mine[place % len(mine)]] = text
        return texts

    def agrees(self, probes: Sequence[Probe]) -> bool:
        """Whether these can be written for together: tried once, against one after another."""
        if not any(probe.scale for probe in probes) or not self.population.can(probes):
            return False
        if not self.writer.takes_padding():
            return False
        if self._agrees is None:
            moving, before = [probe for probe in probes if probe.scale], replace(self.writer.counts)
            try:
                self._agrees = self._try((moving * 3)[:3])
                self._shares = self._agrees and self._try_sharing((moving * 3)[:3])
            except NOT_TAKEN:  # a layer that cannot tell rows apart, or a cache that cannot drop or copy them
                self._agrees = bool(self._agrees)
            self.writer.counts.go_back(before)
        return self._agrees

    @torch.no_grad()
    def _try(self, probes: Sequence[Probe]) -> bool:
        """The logits of three tokens, of which the rows of one probe are the last: after the others have left."""
        writing, found = Writing(3, ()), []
        seeds = [Seeded(0)] * len(TRIED)
        parts = [Wanted(probe, TRIED, seeds) for probe in probes]
        self._written(parts, writing, found.append, leaving=len(TRIED) * (len(probes) - 1))
        for i, probe in enumerate(probes):
            with at(self.model, self.population.weights, probe):
                alone = self.writer.logits(TRIED, 3)
            own = [step[i * len(TRIED) : (i + 1) * len(TRIED)] for step in found[:2]]
            if i == len(probes) - 1:
                own.append(found[2])
            if not same_logits(self.writer, own, alone):
                return False
        return True

    def _try_sharing(self, probes: Sequence[Probe]) -> bool:
        """The logits of three tokens where the prompts' beginnings are computed once, against those where they are not."""
        prompts = [(*BEGUN, *ending) for ending in TRIED]
        found: dict[int, list[torch.Tensor]] = {0: [], len(BEGUN): []}
        if not self.writer.may_share(max(map(len, prompts)) + 3):
            return False
        parts = [Wanted(probe, prompts, [Seeded(0)] * len(prompts)) for probe in probes]
        for shared, own in found.items():
            self._written(parts, Writing(3, ()), own.append, shared=shared)
        return same_logits(self.writer, found[len(BEGUN)], found[0])

    def _shared(self, prompts: Sequence[Tokens], rows: int, writing: Writing) -> int:
        """Tokens that the prompts of a batch begin with, and that are computed once for each probe. rows: of a probe."""
        if not self._shares or rows < 2:
            return 0
        width = max(map(len, prompts)) + writing.max_new_tokens
        return in_common(prompts) if self.writer.may_share(width) else 0

    @torch.no_grad()
    def _written(
        self,
        parts: Sequence[Wanted],
        writing: Writing,
        on_logits: OnLogits | None = None,
        *,
        leaving: int = 0,
        shared: int = 0,
    ) -> list[list[int]]:
        """The tokens of every row. leaving: so many rows, the first ones, are over after two tokens: for a trial. shared:
        tokens that every prompt begins with, to be computed once for each probe.
        """
        ids, mask = self.writer.padded([prompt for part in parts for prompt in part.prompts], shared)
        written: list[list[int]] = [[] for _ in ids]
        rows = list(range(len(ids)))  # of `written`: the batch's
        over, undefined = [False] * len(ids), Undefined()
        ends = set() if leaving else set(self.writer.ends_of(writing))
        chooser = Chooser(writing, [each for part in parts for each in part.seeded], ids.device)
        probes, cache = len(parts), None
        probed = [part.probe for part in parts]
        with span("forward"), unbroken_head(self.model), self.population.at(probed):
            if shared:
                cache = self.writer.begun(ids[:probes, :shared], len(ids) // probes)
                self.writer.count(ids[:, :shared].numel(), (len(ids) - probes) * shared)
                ids = ids[:, shared:]
            for position in range(writing.max_new_tokens):
                out = self.model(**self._inputs(ids, mask, cache))
                self.writer.count(ids.numel())
                logits = undefined(None, out.logits[:, -1].float())
                if on_logits is not None:
                    on_logits(logits)
                tokens, cache = chooser.choose(logits, position), out.past_key_values
                for row, token in zip(rows, tokens.tolist(), strict=True):
                    if not over[row]:
                        written[row].append(token)
                        over[row] = token in ends or self.writer.is_over(written[row], writing)
                        over[row] = over[row] or (position == 1 and row < leaving)
                if all(over):
                    break
                ids, mask = tokens[:, None], torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
                kept = _kept(rows, over, probes)
                if kept is not None:
                    which, probes = torch.tensor(kept.rows, device=ids.device), len(kept.probes)
                    self.population.keep(torch.tensor(kept.probes, device=ids.device))
                    cache.batch_select_indices(which)
                    ids, mask, rows = ids[which], mask[which], [rows[i] for i in kept.rows]
                    chooser.keep(which)
        undefined.check()
        return written

    def _inputs(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": True}
        if "position_ids" in self.writer.takes:
            places = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)
            inputs["position_ids"] = places[:, -ids.shape[1] :]
        if "logits_to_keep" in self.writer.takes:
            inputs["logits_to_keep"] = 1
        return inputs if cache is None else {**inputs, "past_key_values": cache}


@dataclass(frozen=True, slots=True)
class _Kept:
    rows: list[int]  # places in the batch, as many for each probe
    probes: list[int]


def _kept(rows: Sequence[int], over: Sequence[bool], probes: int) -> _Kept | None:
    """What is left of a batch; None while dropping the rest is not worth it. A probe with fewer rows keeps some that are
    over, and if need be one of them twice: every probe has as many.
    """
    each = len(rows) // probes
    going = [[i for i in range(p * each, (p + 1) * each) if not over[rows[i]]] for p in range(probes)]
    most = max(map(len, going))
    left = [p for p in range(probes) if going[p]]
    if len(left) * most > _WORTH * len(rows):
        return None
    filled = [(going[p] + [i for i in range(p * each, (p + 1) * each) if over[rows[i]]])[:most] for p in left]
    return _Kept([i for own in filled for i in own], left)
