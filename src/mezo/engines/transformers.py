"""The default engine: any Hugging Face causal or masked language model, in this process."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from mezo.engines import selfcheck
from mezo.engines.base import Engine
from mezo.engines.head import Head
from mezo.engines.inplace import InPlace
from mezo.engines.layout import Layout, arrange, plan
from mezo.engines.probing import Probing
from mezo.objectives import Objective
from mezo.optimizers import Optimizer
from mezo.scoring import Example, ScoringBatch, pose
from mezo.types import THETA, Probe, Update
from mezo.weights import Weights


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
        max_tokens: int = 8192,
    ):
        self.model, self.weights, self.objective, self.optimizer = model, weights, objective, optimizer
        self.kind, self.pad, self.max_tokens = kind, pad_token_id, max_tokens
        self.state = optimizer.init(weights)
        self.head_module = model.get_output_embeddings()
        self.probing = Probing(model, weights)
        self.in_place = InPlace(weights) if memory == "regenerate" else None
        self.tokens_computed = 0  # that went through the model, padding included
        self.form = selfcheck.Form()
        self.form = selfcheck.find_form(self, probes=probes and self.in_place is None)

    # ---------------------------------------------------------------- the engine interface

    def losses(self, batch: Sequence[Example], probes: Sequence[Probe]) -> list[float]:
        posed = pose(batch, answers_only=self.objective.answers_only)
        return [self.objective(posed, row) for row in self.logprobs(posed, probes)]

    def logprobs(self, batch: ScoringBatch, probes: Sequence[Probe] = (THETA,)) -> np.ndarray:
        if self.in_place is not None or not self.form.stacked:
            return np.concatenate([self._one_by_one(batch, probe) for probe in probes])
        return self._in_shares(batch, probes)

    def apply(self, update: Update) -> None:
        self.state = self.optimizer.apply_(self.weights, self.state, update)

    # ---------------------------------------------------------------- one pass

    def _one_by_one(self, batch: ScoringBatch, probe: Probe) -> np.ndarray:
        if self.in_place is None:
            return self._in_shares(batch, [probe])
        with self.in_place.at(probe):
            return self._in_shares(batch, [THETA])

    def _in_shares(self, batch: ScoringBatch, probes: Sequence[Probe]) -> np.ndarray:
        """Split the rows where one pass would hold too many tokens at once."""
        limit = max(1, self.max_tokens // len(probes))
        out = np.empty((len(probes), len(batch.query_row)))
        share: list[int] = []
        tokens = 0
        for r, row in enumerate(batch.rows):
            share.append(r)
            tokens += len(row)
            last = r == len(batch.rows) - 1
            if last or tokens + len(batch.rows[r + 1]) > limit:
                mine = np.isin(batch.query_row, share)
                out[:, mine] = self._forward(batch, share, mine, probes)
                share, tokens = [], 0
        return out

    @torch.no_grad()
    def _forward(
        self, batch: ScoringBatch, share: list[int], mine: np.ndarray, probes: Sequence[Probe]
    ) -> np.ndarray:
        rows = [batch.rows[r] for r in share]
        # what is longer than positions or an attention window allow is left to the model's own masks
        packed = self.form.packed and max(map(len, rows)) <= self.form.pack_limit
        layout = self._layout(rows, packed)
        local = torch.from_numpy(batch.query_row[mine] - share[0])
        positions = layout.row_start[local] + torch.from_numpy(batch.query_position[mine])
        tokens = torch.from_numpy(batch.query_token[mine])
        device = self.model.device
        head = Head(
            self.probing,
            self.head_module,
            len(probes),
            positions.to(device),
            tokens.to(device),
            whole=self.form.whole_head,
        )
        inputs = self._inputs(layout, len(probes), packed)
        with self.probing.at(probes, rows=len(inputs["input_ids"]), overrides={self.head_module: head}):
            logits = (
                self.model(**inputs, use_cache=False).logits
                if self.kind == "causal"
                else self.model(**inputs).logits
            )
        self.tokens_computed += inputs["input_ids"].numel()
        return head.result(logits).numpy()

    def _layout(self, rows: Sequence[Sequence[int]], packed: bool) -> Layout:
        lengths = [len(row) for row in rows]
        if packed:
            bins = plan(lengths, attention_share=self.form.attention_share, limit=self.form.pack_limit)
        else:
            bins = [[r] for r in range(len(rows))]
        return arrange(rows, bins, pad=self.pad, causal=self.kind == "causal", limit=self.form.pack_limit)

    def _inputs(self, layout: Layout, copies: int, packed: bool) -> dict[str, torch.Tensor]:
        device = self.model.device

        def stack(x: torch.Tensor) -> torch.Tensor:
            return x.to(device).repeat(copies, *[1] * (x.dim() - 1))

        inputs = {"input_ids": stack(layout.input_ids)}
        if packed:
            inputs["position_ids"] = stack(layout.position_ids + self.form.position_offset)
            if layout.mask is not None:
                inputs["attention_mask"] = stack(layout.mask)
        else:
            width = layout.input_ids.shape[1]
            inputs["attention_mask"] = stack((torch.arange(width) < layout.lengths.unsqueeze(1)).long())
        return inputs
