"""The default engine: any Hugging Face causal or masked language model, in this process."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from mezo.config import Shortcut
from mezo.engines.base import Engine, PreparedBatch
from mezo.engines.counts import Counts
from mezo.engines.in_place.modes import Memory, walk_for
from mezo.engines.in_place.walk import Granularity
from mezo.engines.perturb.forward import Probing
from mezo.engines.perturb.layer_forwards import CannotStack
from mezo.engines.perturb.raw_reads import RawReads
from mezo.engines.transformers import selfcheck
from mezo.engines.transformers.audit import audit
from mezo.engines.transformers.batch import BatchPart, LaidOut, join, prepare, stacked
from mezo.engines.transformers.form import Form
from mezo.engines.transformers.frozen_layers import Below
from mezo.engines.transformers.generate import Greedy, at
from mezo.engines.transformers.lm_head import Head
from mezo.engines.transformers.plain_forward import NOT_TAKEN
from mezo.engines.transformers.prefix_cache import SharedKeys
from mezo.engines.transformers.split_points import find_cuts
from mezo.errors import MezoError
from mezo.models.offloaded import device_of
from mezo.objectives import LogprobObjective, Objective, OutputObjective
from mezo.optimizers import Optimizer
from mezo.scoring import Example, ScoringBatch, pose
from mezo.types import THETA, Probe, Update
from mezo.util.clock import since
from mezo.util.parsing import one_line
from mezo.util.profiling import span
from mezo.weights.weights import Weights


class TransformersEngine(Engine):
    """The default engine: theta is in `model`; probes never write it unless `memory` asks for a walk.

    `selfcheck` compares each shortcut with the model's own forward on a few tokens: packed or padded rows,
    probes stacked or in turn, the head in blocks or whole. The slowest form works with any model.

    Example:
        mezo train --task demo --engine transformers --steps 3
    """

    def __init__(
        self,
        model: Any,
        weights: Weights,
        objective: Objective,
        optimizer: Optimizer,
        *,
        kind: Literal["causal", "masked"],
        pad_token_id: int,
        memory: Memory = "materialize",
        granularity: Granularity | None = None,
        granularity_block: int = 4096,
        probes: bool = True,
        share_prefixes: bool = True,
        activation_cache_bytes: int = 0,
        max_tokens: int = 8192,
        tokenizer: Any = None,
        max_new_tokens: int = 32,
        disable_shortcuts: Collection[Shortcut] = (),
    ):
        """tokenizer, max_new_tokens: for objectives and metrics of generated text. disable_shortcuts: never used."""
        self.model, self.weights, self.objective, self.optimizer = model, weights, objective, optimizer
        self.kind: Literal["causal", "masked"] = kind
        self.pad, self.max_tokens = pad_token_id, max_tokens
        self.state, self.head_module = optimizer.init(weights), model.get_output_embeddings()
        self.disabled = frozenset(disable_shortcuts)
        self.probing = Probing(model, weights)
        self.probing.use_products(self.allows("products"))
        self.in_place = walk_for(memory, weights, granularity, granularity_block)
        self.share_prefixes = share_prefixes and not self.disabled & {"sharing", "all"}
        self.counts = Counts()
        self.below: Below | None = None
        self._activation_cache_bytes = activation_cache_bytes
        self._usual_probes = 2
        self.form = Form()
        self.form = selfcheck.find_form(self, probes=probes and self.in_place is None)
        self.counts = Counts()  # of the work asked for from here on
        self.tokenizer, self.max_new_tokens = tokenizer, max_new_tokens
        self._greedy: Greedy | None = None
        self._to_audit: set[str] = set()
        self._watch: RawReads | None = None

    # ---------------------------------------------------------------- the engine interface

    def prepare(self, batch: Sequence[Example]) -> Sequence[Example]:
        if not isinstance(self.objective, LogprobObjective):
            return tuple(batch)
        return self._prepared(batch, self.objective)

    def _prepared(self, batch: Sequence[Example], objective: LogprobObjective) -> PreparedBatch:
        posed = pose(batch, answers_only=objective.answers_only)
        return PreparedBatch(tuple(batch), self.laid_out(posed, self._usual_probes))

    def losses(self, batch: Sequence[Example], probes: Sequence[Probe]) -> list[float]:
        objective = self.objective
        if isinstance(objective, OutputObjective):
            return [objective(batch, self.generate(batch, probe)) for probe in probes]
        assert isinstance(objective, LogprobObjective)
        if not isinstance(batch, PreparedBatch):
            batch = self._prepared(batch, objective)
        self._usual_probes = self._at_once(probes)
        prepared: LaidOut = batch.made
        values = self._stacked_or_apart(prepared, probes)
        self._audit("losses", prepared.posed, probes, values)
        return [objective(prepared.posed, row) for row in values]

    def logprobs(self, batch: ScoringBatch, probes: Sequence[Probe] = (THETA,)) -> np.ndarray:
        values = self._stacked_or_apart(self.laid_out(batch, self._at_once(probes)), probes)
        self._audit("logprobs", batch, probes, values)
        return values

    def audit_next(self) -> None:
        self._to_audit = {"losses", "logprobs"}

    def _audit(self, what: str, posed: ScoringBatch, probes: Sequence[Probe], values: np.ndarray) -> None:
        if what in self._to_audit and len(posed.query_row):
            self._to_audit.remove(what)
            audit(self, posed, probes, values)

    def in_form(self, batch: ScoringBatch, probes: Sequence[Probe]) -> np.ndarray:
        """`logprobs` in the present form only. Raises CannotStack where it does not apply."""
        return self._logprobs(self.laid_out(batch, self._at_once(probes)), probes)

    def generate(
        self,
        examples: Sequence[Example],
        probe: Probe = THETA,
        *,
        max_new_tokens: int | None = None,
        stop: str = "\n",
    ) -> list[str]:
        if self.kind != "causal":
            raise MezoError(
                "a masked language model cannot write text; choose a causal model, or another objective or metric"
            )
        if self.tokenizer is None:
            raise MezoError("an engine needs a tokenizer to write text: pass tokenizer=")
        if self._greedy is None:
            self._greedy = Greedy(
                self.model, self.tokenizer, pad=self.pad, max_tokens=self.max_tokens, counts=self.counts
            )
        point = at(self.model, self.weights, probe) if self.in_place is None else self.in_place.at(probe)
        with point:
            prompts = [e.prompt for e in examples]
            return self._greedy(
                prompts, self.max_new_tokens if max_new_tokens is None else max_new_tokens, stop
            )

    def apply(self, update: Update) -> None:
        weights = self.weights if self.in_place is None else self.in_place.weights
        self.state = self.optimizer.apply_(weights, self.state, update)
        if self.in_place is not None:
            self.in_place.release()

    @property
    def holds_theta(self) -> bool:
        return True

    def packed_state(self) -> Any:
        return self.optimizer.pack(self.state)

    def restore(self, state: Any) -> None:
        self.state = self.optimizer.init(self.weights) if state is None else state

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

    # ---------------------------------------------------------------- one pass

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
        # a part of the model that ran for the first time reads weights past their modules
        self.probing.write_whole(read)
        self._watch, self.form = None, replace(self.form, stacked=False)
        self.counts.go_back(before)  # once in a process: a resumed run would count the step's tokens twice
        return self._stacked_or_apart(self.laid_out(prepared.posed, 1), probes)

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

    def _in_shares(self, prepared: LaidOut, probes: Sequence[Probe]) -> np.ndarray:
        with span("forward"):
            parts = [(share.mine, self._forward_or_say(share, probes)) for share in prepared.shares]
        return join(parts, len(probes), len(prepared.posed.query_row))

    def _forward_or_say(self, share: BatchPart, probes: Sequence[Probe]) -> np.ndarray:
        try:
            return self._forward(share, probes)
        except (CannotStack, MezoError):
            raise
        except NOT_TAKEN as error:
            longest = max(map(len, share.rows))
            raise MezoError(
                f"{type(self.model).__name__}: its forward pass fails on {len(share.rows)} rows of at most {longest} tokens "
                f"({type(error).__name__}: {one_line(error)[:200]}); lower max_length or batch_size if that is too much"
            ) from error

    @torch.no_grad()
    def _forward(self, share: BatchPart, probes: Sequence[Probe]) -> np.ndarray:
        began, copies = time.monotonic(), len(probes)
        if self.form.plain:
            answers = self._plainly(share, probes)
            self._count(share, copies, 0.0, since(began))
            return answers
        head = Head(self.probing, self.head_module, copies, share.queries, whole=self.form.whole_head)
        rows = copies * len(share.layout.input_ids)
        with self.probing.at(probes, rows=rows, overrides={self.head_module: head}):
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

    def _plainly(self, share: BatchPart, probes: Sequence[Probe]) -> np.ndarray:
        """(P, Q) by the model's own forward of rows of one length: slow, and right for any model."""
        queries, found = share.queries, []
        for probe in probes:
            with self.probing.at([probe], rows=len(share.layout.input_ids), plainly=True):
                logits = self.model(**self.plain_inputs(share.layout.input_ids)).logits
            table = logits.flatten(0, 1)[queries.positions].float().log_softmax(-1)
            found.append(table[queries.inverse, queries.tokens].double().cpu().numpy())
        return np.stack(found)

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
