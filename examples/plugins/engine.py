"""An engine: a transformers model as if it were a server, small and slow. --engine engine.py:start --tuning lora"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.func import functional_call
from transformers import AutoModelForCausalLM, AutoTokenizer

from mezo.engines.serving.backend import Answer, Ask, Backend, EngineSpec, Names, Tokens
from mezo.util.writing import Writing


class Local(Backend):
    """Adds an adapter's product to the weights for the length of a call."""

    def __init__(self, spec: EngineSpec) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(spec.model, dtype=getattr(torch, spec.dtype)).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(spec.model)
        self.names, self.adapters = Names(), {None: {}}

    def load_adapter(self, name: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        self.names.take(name)
        weights = dict(self.model.named_parameters())
        self.adapters[name] = {}
        for key, a in tensors.items():
            if "lora_A" in key:
                place = key.removeprefix("base_model.model.").removesuffix("lora_A.weight") + "weight"
                delta = tensors[key.replace("lora_A", "lora_B")] @ a * (config["lora_alpha"] / config["r"])
                self.adapters[name][place] = weights[place] + delta

    def unload_adapter(self, name: str) -> None:
        self.names.drop(name)
        del self.adapters[name]

    @torch.no_grad()
    def score(self, asks: Sequence[Ask]) -> list[Answer]:
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Answer:
        table = self._logits(ask.tokens, ask.adapter).float().log_softmax(-1)
        places = [(-1, t) for t in ask.choices] or [
            (i - 1, ask.tokens[i]) for i in range(ask.start, len(ask.tokens))
        ]
        return Answer(tuple(float(table[i, t]) for i, t in places), len(ask.tokens), 0)

    def _logits(self, tokens: Tokens, adapter: str | None) -> torch.Tensor:
        self.names.need(adapter)
        given = {"input_ids": torch.tensor([tokens]), "use_cache": False}
        return functional_call(self.model, self.adapters[adapter], (), given, tie_weights=False).logits[0]

    @torch.no_grad()
    def write(self, asks: Sequence[Ask], writing: Writing) -> list[str]:
        return [self._written(ask, writing) for ask in asks]

    def _written(self, ask: Ask, writing: Writing) -> str:
        row, text = list(ask.tokens), ""
        for _ in range(writing.max_new_tokens):
            row.append(int(self._logits(tuple(row), ask.adapter)[-1].argmax()))
            text = self.tokenizer.decode(row[len(ask.tokens) :], skip_special_tokens=True)
            if writing.is_over(text) or row[-1] == self.tokenizer.eos_token_id:
                break
        return writing.cut(text)

    def call_workers(self, operation: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        raise NotImplementedError("this engine tunes adapters only")

    def flush(self) -> None:
        """Nothing is cached."""

    def close(self) -> None:
        """Nothing is held outside of this process."""


def start(spec: EngineSpec, note: Callable[[str], None]) -> Local:
    """The engine for a model; `note` tells people something."""
    return Local(spec)
