"""The passes of a model over a batch, at several probes: stacked where the form allows it, one by one where not."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import repeat
from typing import Any, Literal

import numpy as np
import torch

from mezo.config import Shortcut
from mezo.engines.counts import Counts
from mezo.engines.in_place.walk import InPlace
from mezo.engines.perturb.deal import CannotStack, Deal
from mezo.engines.perturb.forward import Probing
from mezo.engines.perturb.raw_reads import RawReads
from mezo.engines.transformers.batch import BatchPart, LaidOut, join, prepare, stacked
from mezo.engines.transformers.dealt import DealtBatch, Slots
from mezo.engines.transformers.form import Form
from mezo.engines.transformers.frozen_layers import Below
from mezo.engines.transformers.lm_head import Head
from mezo.engines.transformers.plain_forward import NOT_TAKEN, plain_pass
from mezo.engines.transformers.prefix_cache import SharedKeys
from mezo.engines.transformers.split_points import find_cuts
from mezo.errors import MezoError
from mezo.models.offloaded import device_of
from mezo.scoring import ScoringBatch
from mezo.types import THETA, Probe
from mezo.util.clock import since
from mezo.util.parsing import one_line
from mezo.util.profiling import span
from mezo.weights.weights import Weights


class Passes:
    """What `TransformersEngine` does with a batch once it is laid out."""

    model: Any
    weights: Weights
    kind: Literal["causal", "masked"]
    pad: int
    max_tokens: int
    share_prefixes: bool
    disabled: frozenset[str]
    head_module: Any
    probing: Probing
    in_place: InPlace | None
    below: Below | None
    form: Form
    counts: Counts
    _watch: RawReads | None
    _to_audit: set[str]
    _activation_cache_bytes: int

    def in_form(self, batch: ScoringBatch, probes: Sequence[Probe]) -> np.ndarray:
        """`logprobs` in the present form only. Raises CannotStack where it does not apply."""
        return self._logprobs(self.laid_out(batch, self._at_once(probes)), probes)

    def find_below(self) -> None:
        """Find out what can be computed once for all probes that move upper layers alone."""
        ids = torch.tensor([[5, 6, 7]], device=device_of(self.model))
        place = {id(t.tensor): n for n, t in enumerate(self.weights.tunables)}
        owners = {
            module: tuple(place[id(p)] for p in module._parameters.values() if id(p) in place)
            for module in self.probing.owners()
        }
        cuts = find_cuts(self.model, owners, lambda: self.model(input_ids=ids))
        self.below = None if cuts is None else Below(cuts, self._activation_cache_bytes)

    def allows(self, shortcut: Shortcut) -> bool:
        """Whether a shortcut may be used, if it agrees with the model's own forward."""
        return not self.disabled & {shortcut, "all"}

    def _groups(self, probes: Sequence[Probe]) -> list[list[Probe]]:
        """The probes in groups that share a pass: all, or those of one scaling, so lower layers run once a group."""
        if self.in_place is not None or not self.form.stacked:
            return [[probe] for probe in probes]
        groups: list[list[Probe]] = [[]]
        for probe in probes:
            others = {p.scaling for p in groups[-1] if p.scale}
            if self.below is not None and probe.scale and others and probe.scaling not in others:
                groups.append([])
            groups[-1].append(probe)
        return groups

    def _at_once(self, probes: Sequence[Probe]) -> int:
        """How many of the probes go through the model together, at most."""
        return max(map(len, self._groups(probes)))

    def laid_out(self, posed: ScoringBatch, num_probes: int = 1) -> LaidOut:
        return prepare(
            posed,
            num_probes,
            self.form,
            pad=self.pad,
            causal=self.kind == "causal",
            share_prefixes=self.share_prefixes,
            max_tokens=self.max_tokens,
            device=device_of(self.model),
        )

    def _stacked_or_apart(self, prepared: LaidOut, probes: Sequence[Probe]) -> np.ndarray:
        read: set[str] = set()  # tensors that the probes at hand move, and that were read past their modules
        before = replace(self.counts)

        def watched(prepared: LaidOut, group: Sequence[Probe]) -> np.ndarray:
            with self._watching(group) as watch:
                found = self._in_shares(prepared, group)
            # what this group does not move is read as it is, by the module's own forward
            read.update(() if watch is None else self.probing.moved(watch.read, group))
            return found

        try:
            found = self._logprobs(prepared, probes, watched)
        except CannotStack:  # in this batch; a function of the batch, so that a resumed run does the same
            apart = self.laid_out(prepared.posed, 1)
            found = np.concatenate([watched(apart, [probe]) for probe in probes])
        if not read:
            return found
        self._write_whole(read)
        self.counts.go_back(before)  # once in a process: a resumed run would count the step's tokens twice
        return self._stacked_or_apart(self.laid_out(prepared.posed, 1), probes)

    def _dealt(self, made: DealtBatch, slots: Slots) -> np.ndarray | None:
        """(slots, Q); None where a layer cannot tell parts apart: a function of the model and the batch."""
        found: list[np.ndarray] = []
        for group in self._groups(slots.first):
            deals = made.deals(slots, sum(map(len, found)), len(group))
            try:
                with self._watching(group) as watch:
                    found.append(self._in_shares(made.laid_out, group, deals))
            except CannotStack:
                return None
            if read := set() if watch is None else self.probing.moved(watch.read, group):
                self._write_whole(read)
                return None
        return np.concatenate(found)

    def _write_whole(self, read: set[str]) -> None:
        """A part of the model that ran for the first time reads these weights past their modules."""
        self.probing.write_whole(read)
        self._watch, self.form = None, replace(self.form, stacked=False)

    @contextmanager
    def _watching(self, probes: Sequence[Probe]) -> Iterator[RawReads | None]:
        """Sees reads of tuned tensors that the probes would miss. On a GPU, where Python is slow, in audits only."""
        moves = self.in_place is None and any(probe.scale for probe in probes)
        if not moves or (device_of(self.model).type == "cuda" and not self._to_audit):
            yield None
            return
        if self._watch is None:
            self._watch = RawReads(self.weights, ignoring=self.probing.whole)
        self._watch.read.clear()
        with self._watch:
            yield self._watch

    def _logprobs(
        self,
        prepared: LaidOut,
        probes: Sequence[Probe],
        run: Callable[[LaidOut, Sequence[Probe]], np.ndarray] | None = None,
    ) -> np.ndarray:
        at_once, run = self._at_once(probes), run or self._in_shares
        if prepared.num_probes != at_once:
            prepared = self.laid_out(prepared.posed, at_once)
        if self.in_place is not None:
            with closing(self.in_place.visit(probes)) as points:
                return np.concatenate([self._in_shares(prepared, [THETA]) for _ in points])
        return np.concatenate([run(prepared, group) for group in self._groups(probes)])

    def _in_shares(
        self, prepared: LaidOut, probes: Sequence[Probe], deals: Sequence[Deal] | None = None
    ) -> np.ndarray:
        with span("forward"):
            parts = [
                (share.mine, self._forward_or_say(share, probes, deal))
                for share, deal in zip(prepared.shares, deals or repeat(None), strict=False)
            ]
        return join(parts, len(probes), len(prepared.posed.query_row))

    def _forward_or_say(self, share: BatchPart, probes: Sequence[Probe], deal: Deal | None) -> np.ndarray:
        try:
            return self._forward(share, probes, deal)
        except (CannotStack, MezoError):
            raise
        except NOT_TAKEN as error:
            longest = max(map(len, share.rows))
            raise MezoError(
                f"{type(self.model).__name__}: its forward pass fails on {len(share.rows)} rows of at most {longest} tokens "
                f"({type(error).__name__}: {one_line(error)[:200]}); lower max_length or batch_size if that is too much"
            ) from error

    @torch.no_grad()
    def _forward(self, share: BatchPart, probes: Sequence[Probe], deal: Deal | None = None) -> np.ndarray:
        began, copies = time.monotonic(), len(probes)
        if self.form.plain:
            answers = plain_pass(self, share, probes)
            self._count(share, copies, 0.0, since(began))
            return answers
        head = Head(self.probing, self.head_module, copies, share.queries, whole=self.form.whole_head)
        rows = copies * len(share.layout.input_ids)
        with self.probing.at(probes, rows=rows, overrides={self.head_module: head}, deal=deal):
            cut = None if self.below is None else self.below.cut(probes)
            if self.below is None or cut is None:
                answers = head.result(self.model(**self.inputs(share, copies)).logits).numpy()
                spared = 0.0
            else:
                with self.below.once(share, copies, cut) as spared:
                    answers = head.result(self.model(**self.inputs(share, 1)).logits).numpy()
        self._count(share, copies, spared, since(began))
        return answers

    def _count(self, share: BatchPart, copies: int, spared: float, seconds: float) -> None:
        layout = share.layout
        self.counts.add(
            asked=copies * layout.asked,
            reused=copies * (layout.asked - layout.distinct),
            computed=copies * layout.computed,
            spared=spared,
            seconds=seconds,
        )

    def plain_inputs(self, ids: torch.Tensor) -> dict[str, Any]:
        """What the model is given of unpadded rows of one length."""
        return {"input_ids": ids, **({"use_cache": False} if self.kind == "causal" else {})}

    def inputs(self, share: BatchPart, copies: int) -> dict[str, Any]:
        """What the model is given of a share, once for each of `copies` probes."""
        layout = share.layout
        inputs: dict[str, Any] = {"input_ids": stacked(layout.input_ids, copies)}
        if self.kind == "causal":
            inputs["use_cache"] = False
        if share.packed:
            inputs["position_ids"] = stacked(layout.position_ids + self.form.position_offset, copies)
            if layout.mask is not None:
                inputs["attention_mask"] = stacked(layout.mask, copies)
            if layout.keys is not None:
                inputs["past_key_values"] = SharedKeys(layout.keys, layout.computed)
                inputs["use_cache"] = True
        elif self.form.padded:
            width = layout.input_ids.shape[1]
            place = torch.arange(width, device=layout.lengths.device)
            inputs["attention_mask"] = stacked((place < layout.lengths.unsqueeze(1)).long(), copies)
        return inputs
