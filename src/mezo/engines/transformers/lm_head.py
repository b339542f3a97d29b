"""Log-probabilities from the language-model head, at the scored positions only.

The vocabulary is processed in blocks with a running log-sum-exp, so the full logits are never stored.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from mezo.engines.perturb import dealt, low_rank, matmul
from mezo.engines.perturb.forward import Probing
from mezo.engines.perturb.probed import block_elements
from mezo.engines.perturb.raw_reads import knowing
from mezo.engines.transformers.batch import Queries
from mezo.tuning.label_rows import has_rows
from mezo.util.profiling import span

# 16-bit blocks are widened to float32 on the way: small enough that both stay in a core's own cache
# (SmolLM2-135M, bfloat16, one core: the head of a step takes 28 ms instead of 95)
_WIDENED_ELEMENTS = 1 << 19


class Head:
    """Replaces the output embedding's forward for one pass; then `result(logits)` is (P, Q) float64.

    `whole`: the model changes its logits (a soft cap, a scale), so it gets all of them, (1, P * positions, V).
    """

    def __init__(
        self,
        probing: Probing,
        module: nn.Module,
        num_probes: int,
        queries: Queries,
        *,
        whole: bool = False,
    ):
        self._narrow: torch.Tensor | None = None  # 16-bit inputs, where their products come in float32
        self._rows: Any = None  # an adapter's change of the label words' rows
        if has_rows(module):
            (a,), (b,) = module.lora_A.values(), module.lora_B.values()  # type: ignore[union-attr,operator]
            self._rows, module = (a.weight, b.weight), module.base_layer  # type: ignore[assignment]
        self.probing, self.module, self.num_probes, self.whole = probing, module, num_probes, whole
        self.queries = queries
        self._logprobs: torch.Tensor | None = None
        self._calls = 0

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        self._calls += 1
        with span("head"), knowing(), self.probing.reading(self.queries.positions):
            return self._forward(hidden)

    def _forward(self, hidden: torch.Tensor) -> torch.Tensor:
        tokens, inverse = self.queries.tokens, self.queries.inverse
        h = hidden.reshape(self.num_probes, -1, hidden.shape[-1]).index_select(1, self.queries.positions)
        weight, bias = self.module._parameters["weight"], self.module._parameters.get("bias")
        assert weight is not None
        # 16-bit logits would lose the differences that a probe makes: the head works in float32
        self._narrow = h if matmul.has_wide_products(h, weight) else None
        h = h.float()
        num_tokens, width = weight.shape
        best = h.new_full(h.shape[:2], -torch.inf)
        total = torch.zeros(h.shape[:2], dtype=torch.float64, device=h.device)
        kept = h.new_empty(*h.shape[:2], num_tokens) if self.whole else None
        picked = h.new_zeros(self.num_probes, len(tokens))
        moved = None if self._rows is None else h @ self._rows[0].float().T  # (P, positions, rows)
        room = 2**25 if h.is_cuda else 2**23  # logits of all probes: 16-bit ones of a bare pass take more
        limit = room * width // max(1, h.shape[0] * h.shape[1])
        if self._narrow is None or self._is_tuned:  # else a block is no copy
            limit = min(limit, block_elements(weight))
        if weight.dtype != torch.float32 and weight.device.type == "cpu":
            limit = min(limit, _WIDENED_ELEMENTS)
        limit = max(width, limit)
        for start, stop in Probing.blocks(weight, limit):
            biases = {} if bias is None else self._biases(bias[start:stop], start, stop)
            chosen = self.queries.within(start, stop)
            asked = (inverse[chosen], tokens[chosen] - start) if len(chosen) else None
            for i, logits in self._logits(h, start, stop, biases):
                if self._rows is not None and moved is not None:
                    logits = logits + moved[i] @ self._rows[1][start:stop].float().T
                if kept is not None:
                    kept[i, :, start:stop] = logits
                    continue
                top = torch.maximum(best[i], logits.amax(-1))
                if asked is not None:
                    picked[i, chosen] = logits[asked]
                total[i] *= (best[i] - top).double().exp()
                total[i] += logits.sub_(top.unsqueeze(-1)).exp_().sum(-1, dtype=torch.float64)
                best[i] = top
        if kept is not None:
            return kept.view(1, -1, num_tokens)
        log_sum = best.double() + total.log()
        self._logprobs = picked.double() - log_sum[:, inverse]
        return hidden.new_zeros(1, 1, 1)  # what the model makes of its logits is not looked at

    def result(self, logits: torch.Tensor) -> torch.Tensor:
        """(P, Q) float64 on the CPU; `logits` is what the model returned.

        Raises RuntimeError unless the output embedding was called exactly once.
        """
        if self._calls != 1:
            raise RuntimeError(f"expected one call of the output embedding, found {self._calls}")
        if self._logprobs is None:
            q = self.queries
            table = logits.view(self.num_probes, len(q.positions), -1).float().log_softmax(-1)
            self._logprobs = table[:, q.inverse, q.tokens].double()
        return self._logprobs.cpu()

    def _logits(
        self, h: torch.Tensor, start: int, stop: int, biases: dict[int, torch.Tensor]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """(probe index, its (positions, stop - start) logits), float32."""
        tunable = self.probing.tunable(self.module, "weight")
        if tunable is not None and tunable.low_rank is not None:
            own = [biases[i] for i in range(len(biases))]
            yield from enumerate(
                low_rank.linear(self.probing, tunable, h, None, own, rows=slice(start, stop))
            )
            return
        if tunable is not None and self._moves:
            for i, block in self.probing.perturbed(tunable, start, stop):
                yield i, self._product(h[i], i, block, biases.get(i))
        else:
            block = self.module._parameters["weight"][start:stop]  # type: ignore[index]
            block = block if self._narrow is not None else block.float()
            for i in range(self.num_probes):
                yield i, self._product(h[i], i, block, biases.get(i))

    def _product(
        self, h: torch.Tensor, i: int, block: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if self._narrow is not None:
            product = matmul.wide_product(self._narrow[i], block)
            return product if bias is None else product.add_(bias)
        if bias is None or bias.dim() == 1:
            return matmul.linear(h, block.float(), bias)
        return matmul.linear(h, block.float()).add_(bias)

    def _biases(self, plain: torch.Tensor, start: int, stop: int) -> dict[int, torch.Tensor]:
        """By probe, float32. plain: those at theta."""
        tunable = self.probing.tunable(self.module, "bias")
        if tunable is not None and self._moves:
            if self.probing.deal is not None:  # of each position
                own = dealt.vector(self.probing, tunable, len(self.queries.positions), start, stop)
                return {i: b.float() for i, b in enumerate(own)}
            return {i: b[start:stop].float() for i, b in enumerate(self.probing.perturbed_copies(tunable))}
        return dict.fromkeys(range(self.num_probes), plain.float())

    @property
    def _is_tuned(self) -> bool:
        return self.probing.tunable(self.module, "weight") is not None and self._moves

    @property
    def _moves(self) -> bool:
        return any(pair.at.scale for pair in self.probing.pairs)
