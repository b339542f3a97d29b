"""The default engine: any Hugging Face causal or masked language model, in this process."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from mezo.config import Shortcut
from mezo.engines.base import Engine, PreparedBatch
from mezo.engines.counts import Counts
from mezo.engines.in_place.modes import Memory, walk_for
from mezo.engines.in_place.walk import Granularity
from mezo.engines.perturb.forward import Probing
from mezo.engines.perturb.raw_reads import RawReads
from mezo.engines.transformers import selfcheck
from mezo.engines.transformers.audit import audit
from mezo.engines.transformers.batch import LaidOut
from mezo.engines.transformers.dealt import DealtBatch, Slots, dealt, has_factors
from mezo.engines.transformers.form import Form
from mezo.engines.transformers.frozen_layers import Below
from mezo.engines.transformers.passes import Passes
from mezo.engines.transformers.writing import Writes
from mezo.objectives import LogprobObjective, Objective, OutputObjective
from mezo.optimizers import Optimizer
from mezo.scoring import Example, ScoringBatch, pose
from mezo.types import THETA, Probe, Update
from mezo.util.writing import GREEDILY, Writing
from mezo.weights.weights import Weights


class TransformersEngine(Passes, Writes, Engine):
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
        writing: Writing = GREEDILY,
        rows_at_once: int = 256,
        disable_shortcuts: Collection[Shortcut] = (),
    ):
        """tokenizer, writing: for objectives and metrics of generated text. rows_at_once: that are written
        for many probes together. disable_shortcuts: never used."""
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
        self._usual_probes, self._usual_parts = 2, 1
        self.form = Form()
        self.form = selfcheck.find_form(self, probes=probes and self.in_place is None)
        self.counts = Counts()  # of the work asked for from here on
        self.tokenizer, self.writing = tokenizer, writing
        self.rows_at_once, self._writer, self._together = rows_at_once, None, None
        self._to_audit: set[str] = set()
        self._watch: RawReads | None = None

    # ---------------------------------------------------------------- the engine interface

    def prepare(self, batch: Sequence[Example]) -> Sequence[Example]:
        if not isinstance(self.objective, LogprobObjective):
            return tuple(batch)
        return self._prepared(batch, self.objective)

    def _prepared(self, batch: Sequence[Example], objective: LogprobObjective) -> PreparedBatch:
        if (parts := self._usual_parts) > 1 and len(batch) % parts == 0:
            made: Any = dealt(self, batch, objective, parts, self._usual_probes)
            return PreparedBatch(tuple(batch), made)
        posed = pose(batch, answers_only=objective.answers_only)
        return PreparedBatch(tuple(batch), self.laid_out(posed, self._usual_probes))

    def losses(self, batch: Sequence[Example], probes: Sequence[Probe]) -> list[float]:
        objective = self.objective
        if isinstance(objective, OutputObjective):
            return self.rewarded(batch, probes, objective)
        assert isinstance(objective, LogprobObjective)
        self._usual_probes, self._usual_parts = self._at_once(probes), 1
        if not isinstance(batch, PreparedBatch) or not isinstance(batch.made, LaidOut):
            batch = self._prepared(tuple(batch), objective)
        prepared: LaidOut = batch.made
        values = self._stacked_or_apart(prepared, probes)
        self._audit("losses", prepared.posed, probes, values)
        return [objective(prepared.posed, row) for row in values]

    def dealt_losses(self, batch: Sequence[Example], probes: Sequence[Probe]) -> list[float]:
        """All parts in one pass, where each token can go along its own direction; else one part after another."""
        slots, objective = Slots.of(probes), self.objective
        if isinstance(objective, OutputObjective):
            return self.rewarded(batch, probes, objective)
        able = self.in_place is None and self.form.stacked and not self.probing.whole
        if slots is None or not (
            able and has_factors(self.weights) and isinstance(objective, LogprobObjective)
        ):
            return super().dealt_losses(batch, probes)
        parts, at_once, before = len(slots.probes[0]), self._at_once(slots.first), replace(self.counts)
        self._usual_probes, self._usual_parts = at_once, parts
        made = batch.made if isinstance(batch, PreparedBatch) else None
        if not isinstance(made, DealtBatch) or not made.is_for(parts, at_once):
            made = dealt(self, tuple(batch), objective, parts, at_once)
        values = self._dealt(made, slots)
        if values is None:
            self.counts.go_back(before)
            return super().dealt_losses(batch, probes)
        k = made.longest
        self._audit("losses", made.parts[k], [slot[k] for slot in slots.probes], values[:, made.queries[k]])
        return made.losses(slots, values, objective)

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

    @property
    def writes(self) -> bool:
        return isinstance(self.objective, OutputObjective)

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
