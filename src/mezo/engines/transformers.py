"""The default engine: any Hugging Face causal or masked language model, in this process."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from mezo.engines import selfcheck
from mezo.engines.base import Engine
from mezo.engines.batch import Prepared, Share, join, prepare, stacked
from mezo.engines.below import Below, find_below
from mezo.engines.counts import Counts
from mezo.engines.head import Head
from mezo.engines.inplace import InPlace
from mezo.engines.probing import Probing
from mezo.engines.shared_cache import SharedKeys
from mezo.objectives import Objective
from mezo.optimizers import Optimizer
from mezo.profiling import span
from mezo.scoring import Example, ScoringBatch, pose
from mezo.types import THETA, Probe, Update
from mezo.weights import Weights


@dataclass(frozen=True, slots=True)
class PreparedBatch(Sequence[Example]):
    """The examples of a step, and what `TransformersEngine.prepare` made of them."""

    examples: tuple[Example, ...]
    prepared: Prepared

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        return self.examples[index]


class TransformersEngine(Engine):
    """theta lives in `model`; probes never write it unless `memory="regenerate"` asks for the paper's walk.

    How far the model's structure lets probes share a pass is found out by `selfcheck` on a few
    tokens, by comparing numbers: packed or padded rows, probes stacked or one after another, the
    head in blocks or whole.
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
        memory: Literal["materialize", "regenerate"] = "materialize",
        probes: bool = True,
        share_prefixes: bool = True,
        activation_cache_bytes: int = 0,
        max_tokens: int = 8192,
    ):
        self.model, self.weights, self.objective, self.optimizer = model, weights, objective, optimizer
        self.kind, self.pad, self.max_tokens = kind, pad_token_id, max_tokens
        self.state = optimizer.init(weights)
        self.head_module = model.get_output_embeddings()
        self.probing = Probing(model, weights)
        self.in_place = InPlace(weights) if memory == "regenerate" else None
        self.share_prefixes = share_prefixes
        self.counts = Counts()
        self.below: Below | None = None
        self._activation_cache_bytes = activation_cache_bytes
        self._usual_probes = 2
        self.form = selfcheck.Form()
        self.form = selfcheck.find_form(self, probes=probes and self.in_place is None)
        self.counts = Counts()  # of the work asked for from here on

    # ---------------------------------------------------------------- the engine interface

    def prepare(self, batch: Sequence[Example]) -> PreparedBatch:
        posed = pose(batch, answers_only=self.objective.answers_only)
        return PreparedBatch(tuple(batch), self._laid_out(posed, self._usual_probes))

    def losses(self, batch: Sequence[Example], probes: Sequence[Probe]) -> list[float]:
        if not isinstance(batch, PreparedBatch):
            batch = self.prepare(batch)
        self._usual_probes = self._at_once(probes)
        values = self._logprobs(batch.prepared, probes)
        return [self.objective(batch.prepared.posed, row) for row in values]

    def logprobs(self, batch: ScoringBatch, probes: Sequence[Probe] = (THETA,)) -> np.ndarray:
        return self._logprobs(self._laid_out(batch, self._at_once(probes)), probes)

    def apply(self, update: Update) -> None:
        self.state = self.optimizer.apply_(self.weights, self.state, update)

    def find_below(self) -> None:
        """Set apart the layers below the lowest tuned one, if there are any."""
        ids = torch.tensor([[5, 6, 7]], device=self.model.device)
        self.below = find_below(
            self.model, self.probing.owners(), lambda: self.model(input_ids=ids), self._activation_cache_bytes
        )

    # ---------------------------------------------------------------- one pass

    def _at_once(self, probes: Sequence[Probe]) -> int:
        """How many of the probes go through the model together."""
        return 1 if self.in_place is not None or not self.form.stacked else len(probes)

    def _laid_out(self, posed: ScoringBatch, num_probes: int) -> Prepared:
        return prepare(
            posed,
            num_probes,
            self.form,
            pad=self.pad,
            causal=self.kind == "causal",
            share_prefixes=self.share_prefixes,
            max_tokens=self.max_tokens,
            device=self.model.device,
        )

    def _logprobs(self, prepared: Prepared, probes: Sequence[Probe]) -> np.ndarray:
        at_once = self._at_once(probes)
        if prepared.num_probes != at_once:
            prepared = self._laid_out(prepared.posed, at_once)
        if at_once == len(probes) and self.in_place is None:
            return self._in_shares(prepared, probes)
        return np.concatenate([self._one_by_one(prepared, probe) for probe in probes])

    def _one_by_one(self, prepared: Prepared, probe: Probe) -> np.ndarray:
        if self.in_place is None:
            return self._in_shares(prepared, [probe])
        with self.in_place.at(probe):
            return self._in_shares(prepared, [THETA])

    def _in_shares(self, prepared: Prepared, probes: Sequence[Probe]) -> np.ndarray:
        with span("forward"):
            parts = [(share.mine, self._forward(share, probes)) for share in prepared.shares]
        return join(parts, len(probes), len(prepared.posed.query_row))

    @torch.no_grad()
    def _forward(self, share: Share, probes: Sequence[Probe]) -> np.ndarray:
        began, copies = time.perf_counter(), len(probes)
        head = Head(self.probing, self.head_module, copies, share.queries, whole=self.form.whole_head)
        rows = copies * len(share.layout.input_ids)
        with self.probing.at(probes, rows=rows, overrides={self.head_module: head}):
            if self.below is None or copies == 1:
                answers = head.result(self.model(**self._inputs(share, copies)).logits).numpy()
                spared = 0.0
            else:
                with self.below.once(share, copies) as spared:
                    answers = head.result(self.model(**self._inputs(share, 1)).logits).numpy()
        self.counts.add(share.layout, copies, spared, time.perf_counter() - began)
        return answers

    def _inputs(self, share: Share, copies: int) -> dict[str, Any]:
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
        else:
            width = layout.input_ids.shape[1]
            place = torch.arange(width, device=layout.lengths.device)
            inputs["attention_mask"] = stacked((place < layout.lengths.unsqueeze(1)).long(), copies)
        return inputs
