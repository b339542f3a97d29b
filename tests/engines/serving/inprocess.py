"""A backend without an engine: transformers in this process, with an engine's manners.

It has a cache that answers from what was first computed under a name, as an engine's does: rows that
begin as an earlier one did are computed with the weights of then, until the cache is flushed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.func import functional_call

from mezo.engines.serving.backend import Answer, Ask, Backend, EngineSpec, Names, Tokens
from mezo.engines.workers import worker
from mezo.models.load import load
from mezo.util.writing import Writing

Parameters = dict[str, torch.Tensor]


class InProcess(Backend):
    def __init__(self, spec: EngineSpec):
        loaded = load(spec.model, spec.dtype, "cpu")
        self.model, self.tokenizer, self.spec = loaded.model, loaded.tokenizer, spec
        self.names = Names()
        self.adapters: dict[str | None, Parameters] = {None: {}}
        self.cache: dict[str | None, tuple[Parameters, set[Tokens]]] = {}
        self.closed = False
        self.calls: list[int] = []  # rows of each call

    @torch.no_grad()
    def score(self, asks: Sequence[Ask]) -> list[Answer]:
        assert not self.closed
        self.calls.append(len(asks))
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Answer:
        self.names.need(ask.adapter)
        then, rows = self.cache.setdefault(ask.adapter, (self._parameters(ask.adapter), set()))
        cached = min(max((in_common(row, ask.tokens) for row in rows), default=0), len(ask.tokens) - 1)
        if not ask.choices:
            cached = min(cached, ask.start - 1)
        found = self._logprobs(then if cached else self._parameters(ask.adapter), ask.tokens)
        if self.spec.cache:
            rows.add(ask.tokens)
        if ask.choices:
            values = [float(found[-1, token]) for token in ask.choices]
        else:
            values = [float(found[i - 1, ask.tokens[i]]) for i in range(ask.start, len(ask.tokens))]
        return Answer(tuple(values), len(ask.tokens), cached)

    @torch.no_grad()
    def write(self, asks: Sequence[Ask], writing: Writing) -> list[Tokens]:
        """Greedily; the drawn ones begin with digits of their seed, which tell them apart."""
        outputs: list[Tokens] = []
        for ask in asks:
            prompt, tokens, parameters = ask.tokens, list(ask.tokens), self._parameters(ask.adapter)
            for _ in range(writing.max_new_tokens):
                tokens.append(int(self._logprobs(parameters, tuple(tokens))[-1].argmax()))
                if tokens[-1] == self.tokenizer.eos_token_id:
                    break
            drawn = [5 + ask.seed % 64, 5 + ask.seed // 64 % 64] if writing.draws else []
            outputs.append((*drawn, *tokens[len(prompt) :])[: writing.max_new_tokens])
        return outputs

    def load_adapter(self, name: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        self.names.take(name)
        prefix, scaling = "base_model.model.", config["lora_alpha"] / config["r"]
        found: Parameters = {}
        for key, a in tensors.items():
            if ".lora_A." in key:
                b = tensors[key.replace(".lora_A.", ".lora_B.")]
                found[key.removeprefix(prefix).replace(".lora_A.", ".")] = scaling * b @ a
        self.adapters[name] = found

    def unload_adapter(self, name: str) -> None:
        self.names.drop(name)
        del self.adapters[name]

    def call_workers(self, operation: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [worker.handle(self.model, operation, dict(arguments))]

    def flush(self) -> None:
        self.cache.clear()

    def close(self) -> None:
        self.closed = True

    def _parameters(self, adapter: str | None) -> Parameters:
        """Copies: a cache remembers what it was computed with."""
        added = self.adapters[adapter]
        return {
            name: tensor + added[name] if name in added else tensor.clone()
            for name, tensor in self.model.named_parameters()
        }

    def _logprobs(self, parameters: Parameters, row: Tokens) -> torch.Tensor:
        logits = functional_call(self.model, parameters, kwargs={"input_ids": torch.tensor([row])}).logits
        return torch.log_softmax(logits[0].double(), -1)


def in_common(a: Tokens, b: Tokens) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
