"""A process of `python -m benchmarks seven-billion`: makes the model, runs one case, and prints what it took."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.peak import EPSILON, LEARNING_RATE, forget_peak, peak_since
from benchmarks.seven_billion import BASE, Case
from benchmarks.timing import threads
from benchmarks.workload import full_batch, tuned
from mezo.algorithm import draw_of, mezo_step
from mezo.estimators import TwoPoint
from mezo.models.load import LoadedModel

VOCABULARY = 32000


def random_llama(layers: int, seed: int) -> Any:
    """Llama-2-7B's shape, in bfloat16 from the start; weights of its initialisation's size."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
    )
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16)
    rotary = type(model.model.rotary_emb)(config)  # its buffers are computed, and are in no checkpoint
    model.to_empty(device="cpu")
    model.model.rotary_emb = rotary
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.02, generator=generator)
            else:
                parameter.fill_(1)
    model.config.use_cache = False
    return model.eval().requires_grad_(False)


def step_of(case: Case, model: Any) -> Callable[[int], object]:
    """A step of the case, by its number."""
    batch = full_batch(VOCABULARY, batch_size=case.batch_size, length=case.length)
    if case.case == BASE:
        ids = torch.tensor([[*row.prompt, *row.candidates[0]] for row in batch])

        @torch.no_grad()
        def twice(number: int) -> None:
            for _ in range(2):
                model(input_ids=ids)

        return twice
    loaded = LoadedModel(model, None, "causal", "random")  # type: ignore[arg-type]  # it reads no text
    engine = tuned(loaded, case.case).engine("answer-ce")
    return lambda number: mezo_step(
        engine, TwoPoint(EPSILON), [batch], draw_of(case.seed, number, 1), LEARNING_RATE
    )


def main(arguments: list[str]) -> None:
    case = Case(**json.loads(arguments[0]))
    with threads(case.threads):
        model = random_llama(case.layers, case.seed)
        weights = sum(p.numel() for p in model.parameters())
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        forget_peak()
        step, seconds = step_of(case, model), []
        for number in range(case.steps + 1):
            began = time.perf_counter()
            step(number)
            seconds.append(time.perf_counter() - began)
        print(json.dumps({"peak": peak_since(), "weights": weights, "bytes": size, "seconds": seconds[1:]}))


if __name__ == "__main__":
    main(sys.argv[1:])
